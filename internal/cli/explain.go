package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

// maxSecretInput bounds what is read as a key from stdin.
const maxSecretInput = 4096

// requestFlags describe a request beyond its method and path.
type requestFlags struct {
	host, address string
	headers       []string
}

func (r *requestFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.host, "host", "", "Host header of the request")
	cmd.Flags().StringArrayVar(&r.headers, "header", nil, "header of the request as NAME=VALUE, for routes that read the organization or space from one (repeatable)")
	cmd.Flags().StringVar(&r.address, "address", "", "address of the client (without it the key's allowed addresses are not judged)")
	for _, name := range []string{"host", "header", "address"} {
		noCompletion(cmd, name)
	}
}

func (r *requestFlags) question(cmd *cobra.Command, method, path string) (admin.Question, error) {
	if strings.HasPrefix(method, "/") {
		return admin.Question{}, &usageError{cmd, quote(method) + " is no method: METHOD comes first, then PATH, as in GET /v1/orders"}
	}
	q := admin.Question{Method: strings.ToUpper(method), Path: path, Host: r.host, Address: r.address}
	for _, h := range r.headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return q, &usageError{cmd, "--header: " + quote(h) + " is not NAME=VALUE"}
		}
		if q.Headers == nil {
			q.Headers = make(map[string]string)
		}
		q.Headers[http.CanonicalHeaderKey(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	return q, nil
}

func (a *app) explainCommand() *cobra.Command {
	var request requestFlags
	var key string
	var fromStdin bool
	cmd := &cobra.Command{
		Use: "explain METHOD PATH", Short: "Say what would become of a request, and why", Args: arguments("METHOD", "PATH"),
		Long: `Asks a running keygate what it would do with a request: which rule covers it, what each check comes to and how the limits stand.
Nothing is sent to the upstream and nothing is spent. Without a key the request has none. The path is given as a client sends it.
Exit code 0: it would be let through; 4: it would be refused. A policy that is not in force yet is asked with 'keygate routes explain'.`,
		Example: "  keygate explain --key billing GET /v1/orders/7\n" +
			"  keygate explain --secret-stdin POST /v1/orders --header X-Organization=acme --address 192.0.2.7 < key.txt",
	}
	cmd.Flags().StringVar(&key, "key", "", "id or name of the key")
	cmd.Flags().BoolVar(&fromStdin, "secret-stdin", false, "read the key itself from stdin, as it is known from a client")
	request.add(cmd)
	output := outputFlag(cmd)
	a.complete(cmd, "key", keyNames)
	a.completeArgs(cmd, methods)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if key != "" && fromStdin {
			return &usageError{cmd, "--key and --secret-stdin exclude each other"}
		}
		q, err := request.question(cmd, args[0], args[1])
		if err != nil {
			return err
		}
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		in := admin.ExplainQuestion{Question: q}
		switch {
		case fromStdin:
			in.Key, err = a.readSecret(cmd.Context())
		case key != "":
			var k admin.Key
			k, err = a.findKey(cmd, c, key)
			in.KeyID = k.ID
		}
		if err != nil {
			return err
		}
		e, err := c.Explain(cmd.Context(), in)
		if err != nil {
			return err
		}
		if err := a.printExplanation(newNames(cmd.Context(), c), *output, args, e); err != nil {
			return err
		}
		return allowed(e.Allowed)
	}
	return cmd
}

// allowed is the exit code of a question; what there is to say was said.
func allowed(ok bool) error {
	if !ok {
		return &codeError{exitRefused, ""}
	}
	return nil
}

// readSecret reads a key from stdin, without a line break after it.
func (a *app) readSecret(ctx context.Context) (string, error) {
	type input struct {
		text []byte
		err  error
	}
	read := make(chan input, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(a.stdin, maxSecretInput))
		read <- input{text, err}
	}()
	select {
	case in := <-read:
		secret := strings.TrimSpace(string(in.text))
		if in.err == nil && secret == "" {
			in.err = errors.New("stdin is empty: --secret-stdin reads the key from there")
		}
		return secret, in.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (a *app) printExplanation(n *names, f format, request []string, e admin.Explanation) error {
	if f != formatTable {
		return a.printData(f, e)
	}
	err := printOne(a, f, e, []column[admin.Explanation]{
		{"Request", func(admin.Explanation) string { return strings.ToUpper(request[0]) + " " + request[1] }},
		{"Key", func(e admin.Explanation) string {
			if e.Key == "" {
				return "none that is known"
			}
			return both(n.key(e.Key), e.Key)
		}},
		{"Rule", explainedRule(func(r *admin.ExplainedRule) string { return r.Match })},
		{"Upstream", explainedRule(func(r *admin.ExplainedRule) string { return r.Upstream })},
		{"Needs", explainedRule(explainedNeeds)},
		{"Organization", explainedRule(func(r *admin.ExplainedRule) string { return r.Organization })},
		{"Space", explainedRule(func(r *admin.ExplainedRule) string { return r.Space })},
		{"Plan", func(e admin.Explanation) string { return e.Plan }},
		{"Answer", func(e admin.Explanation) string {
			if e.Allowed && openAddress(e) != "" {
				return "the upstream's: let through from the key's allowed addresses only; give --address to judge one"
			}
			if e.Allowed {
				return "the upstream's: the request is let through"
			}
			return fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
		}},
		{"Reason", func(e admin.Explanation) string { return cmp.Or(e.Detail, openAddress(e)) }},
		{"Lacks", func(e admin.Explanation) string { return strings.Join(e.Missing, ", ") }},
	})
	if err == nil && len(e.Checks) > 0 {
		fmt.Fprintln(a.stdout)
		err = printList(a, f, e.Checks, []column[admin.Check]{
			{"Check", func(c admin.Check) string { return c.Name }},
			{"Result", func(c admin.Check) string { return c.Result }},
			{"Detail", func(c admin.Check) string { return c.Detail }},
		})
	}
	if err == nil && len(e.Limits) > 0 {
		fmt.Fprintln(a.stdout)
		err = printList(a, f, e.Limits, []column[admin.ExplainedLimit]{
			{"Limit", func(l admin.ExplainedLimit) string { return l.Name }},
			{"Allows", func(l admin.ExplainedLimit) string { return allows(l) }},
			{"Left", func(l admin.ExplainedLimit) string { return strconv.FormatInt(l.Remaining, 10) }},
			{"More in", func(l admin.ExplainedLimit) string {
				if l.Reset == 0 {
					return ""
				}
				return brief(time.Duration(l.Reset) * time.Second)
			}},
		})
	}
	return err
}

// openAddress says from where a key may be used whose client's address was not
// given, "" where nothing depends on it.
func openAddress(e admin.Explanation) string {
	for _, c := range e.Checks {
		if c.Name == "address" && c.Result == "skip" && e.Key != "" && (e.Rule == nil || e.Rule.Public == "") {
			return c.Detail
		}
	}
	return ""
}

// allows says how much a limit admits, in what, and whom.
func allows(l admin.ExplainedLimit) string {
	out := fmt.Sprintf("%d in %s", l.Requests, l.Per)
	if l.Timezone != "" {
		out = fmt.Sprintf("%d in a %s (%s)", l.Requests, l.Per, l.Timezone)
	}
	if l.Shared {
		out += ", shared"
	}
	return out
}

func explainedRule(show func(*admin.ExplainedRule) string) func(admin.Explanation) string {
	return func(e admin.Explanation) string {
		if e.Rule == nil {
			return ""
		}
		return show(e.Rule)
	}
}

// explainedNeeds says what a rule wants as 'keygate routes' does.
func explainedNeeds(r *admin.ExplainedRule) string {
	return shownRule{Permission: r.Permissions, Any: r.Any, Public: r.Public}.needs()
}
