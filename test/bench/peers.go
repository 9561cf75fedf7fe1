package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// peer is another gateway, with a configuration that does the same work as far
// as it can.
type peer struct {
	what    string
	program string
	version []string // arguments that print it
	refuses bool     // whether it checks keys
	serve   []string // arguments, with @DIR@ for the folder of its files
	files   map[string]string
}

// nginx only forwards: it has no key check of its own. It is the floor.
var nginx = peer{
	what: "nginx (forwards only)", program: "nginx", version: []string{"-v"},
	serve: []string{"-p", "@DIR@", "-c", "@DIR@/nginx.conf", "-e", "@DIR@/error.log"},
	files: map[string]string{"nginx.conf": `
daemon off;
worker_processes auto;
pid @DIR@/nginx.pid;
events {}
http {
  access_log off;
  client_body_temp_path @DIR@/body;
  proxy_temp_path @DIR@/proxy;
  fastcgi_temp_path @DIR@/fastcgi;
  uwsgi_temp_path @DIR@/uwsgi;
  scgi_temp_path @DIR@/scgi;
  keepalive_requests 1000000000;
  upstream api {
    server @UPSTREAM@;
    keepalive 256;
    keepalive_requests 1000000000;
  }
  server {
    listen @ADDR@ backlog=1024;
    location / {
      proxy_pass http://api;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
    }
  }
}
`},
}

// haproxy looks the key's hash up in a map and counts requests per key.
var haproxy = peer{
	what: "HAProxy (keys, one limit)", program: "haproxy", version: []string{"-v"}, refuses: true,
	serve: []string{"-db", "-f", "@DIR@/haproxy.cfg"},
	files: map[string]string{"haproxy.cfg": `
global
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 1m
  timeout server 1m
frontend gate
  bind @ADDR@
  http-request set-var(txn.key) http_auth_bearer,sha2(256),hex,lower,map_str(@DIR@/keys)
  http-request deny deny_status 401 unless { var(txn.key) -m found }
  http-request track-sc0 var(txn.key) table limits
  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000000 }
  http-request del-header Authorization
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Key-Id %[var(txn.key)]
  default_backend api
backend limits
  stick-table type string len 64 size 1m expire 2m store http_req_rate(1m)
backend api
  http-reuse always
  server api @UPSTREAM@
`},
}

// findPeers reports all that are missing at once, and completes the paths of
// those that are not.
func findPeers() ([]peer, error) {
	peers := []peer{nginx, haproxy}
	var missing []error
	for i := range peers {
		p := &peers[i]
		program, err := exec.LookPath(p.program)
		if err != nil {
			program, err = exec.LookPath("/usr/sbin/" + p.program) // where Debian puts them, and not every PATH looks
		}
		if err != nil {
			missing = append(missing, fmt.Errorf("-peers needs %s: install %s (on Debian: apt-get install %[1]s)", p.program, p.program))
			continue
		}
		p.program = program
	}
	return peers, errors.Join(missing...)
}

// versionOf is the first line of what a program says about itself.
func versionOf(ctx context.Context, program string, args ...string) string {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return filepath.Base(program) + " (unknown)"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// peer starts one and checks it.
func (b *bed) peer(ctx context.Context, p peer, secrets []string) (subject, error) {
	dir, err := os.MkdirTemp(b.dir, "peer-*")
	if err != nil {
		return subject{}, err
	}
	addrs, err := freeAddresses(1)
	if err != nil {
		return subject{}, err
	}
	fill := strings.NewReplacer("@DIR@", dir, "@ADDR@", addrs[0], "@UPSTREAM@", b.upstream)
	var known strings.Builder
	for i, secret := range secrets {
		fmt.Fprintf(&known, "%x key_%d\n", sha256.Sum256([]byte(secret)), i)
	}
	files := map[string]string{"keys": known.String()}
	for name, text := range p.files {
		files[name] = fill.Replace(text)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return subject{}, err
		}
	}
	var args []string
	for _, arg := range p.serve {
		args = append(args, fill.Replace(arg))
	}
	log, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return subject{}, err
	}
	defer log.Close()
	cmd := exec.Command(p.program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	c, err := startChild(p.what, cmd, false)
	if err != nil {
		return subject{}, err
	}
	b.children = append(b.children, c)
	s := subject{name: p.what, child: c, target: target{Addr: addrs[0], Requests: requests(secrets)}}
	if err := c.waitUntil(ctx, func(ctx context.Context) error { return checkForwards(ctx, s) }); err != nil {
		said, _ := os.ReadFile(log.Name()) // only to explain the error
		return s, fmt.Errorf("%w\n%s", err, said)
	}
	if p.refuses {
		if err := checkRefuses(ctx, s); err != nil {
			return s, err
		}
	}
	b.versions = append(b.versions, versionOf(ctx, p.program, p.version...))
	return s, nil
}
