package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"keygate/config"
	"keygate/internal/server"
)

// setting is one variable as `keygate config` shows it.
type setting struct {
	Variable string `json:"variable"`
	Value    string `json:"value"`
	Default  bool   `json:"default"`
}

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Show the effective configuration, or all that is wrong with it",
		Long:    "Shows every variable of the server with its effective value; secrets are hidden. The policy is checked too. All problems are reported at once, with exit code 3.",
		Example: "  keygate config",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
	}
	cmd.AddCommand(a.schemaCommand())
	output := outputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		c, warnings, err := config.FromEnv(a.env)
		for _, w := range warnings {
			a.say("keygate: warning: %s", w)
		}
		var wrong config.Error
		collect(&wrong, err)
		if _, err := loadPolicy(a.env, ""); err != nil {
			collect(&wrong, err)
		}
		if url := c.RedisURL.Reveal(); url != "" {
			collect(&wrong, server.CheckRedisURL(url))
		}
		if len(wrong.Problems) > 0 {
			return &wrong
		}
		var settings []setting
		for _, s := range c.Describe() {
			settings = append(settings, setting{s.Variable, s.Value, s.Default})
		}
		return printList(a, *output, settings, []column[setting]{
			{"Variable", func(s setting) string { return s.Variable }},
			{"Value", func(s setting) string { return s.Value }},
			{"From", func(s setting) string {
				if s.Default {
					return "default"
				}
				return "environment"
			}},
		})
	}
	return cmd
}

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of policy files",
		Long:    "Prints the JSON Schema (draft 2020-12) of the policy files that this version reads, with which editors help to write one.",
		Example: "  keygate config schema > policy.schema.json", Args: arguments(),
		RunE: func(*cobra.Command, []string) error {
			schema, err := config.Schema()
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(schema)
			return err
		},
	}
}

// collect adds an error's problems, without those that are there already.
func collect(into *config.Error, err error) {
	var e *config.Error
	if !errors.As(err, &e) {
		if err != nil {
			into.Problems = append(into.Problems, config.Problem{Message: err.Error()})
		}
		return
	}
	known := make(map[config.Problem]bool)
	for _, p := range into.Problems {
		known[p] = true
	}
	for _, p := range e.Problems {
		if !known[p] {
			into.Problems = append(into.Problems, p)
		}
	}
}

// healthTimeout is below the 30 s after which Docker gives up on a check.
const healthTimeout = 5 * time.Second

func (a *app) healthcheckCommand() *cobra.Command {
	return &cobra.Command{
		Use: "healthcheck", Short: "Ask the keygate on this machine whether it is alive",
		Long:    "Asks /livez at KEYGATE_ADMIN_ADDR. Exit code 0: alive; 1: not.",
		Example: "  keygate healthcheck", Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := config.FromEnv(a.env)
			if err != nil { // a container's health check knows 0 and 1 only
				return &codeError{exitFailure, "the configuration is invalid; 'keygate config' says why"}
			}
			scheme, transport := "http", &http.Transport{DisableKeepAlives: true} // this machine is never asked through a proxy
			if c.AdminTLSCert != "" {
				// The certificate names the host that others call, not this address, and
				// nothing secret is sent.
				scheme, transport.TLSClientConfig = "https", &tls.Config{InsecureSkipVerify: true}
			}
			target := scheme + "://" + dialAddress(c.AdminAddr) + "/livez"
			ctx, cancel := context.WithTimeout(cmd.Context(), healthTimeout)
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
			if err != nil {
				return err
			}
			resp, err := transport.RoundTrip(r)
			if err != nil {
				return &codeError{exitFailure, fmt.Sprintf("%s does not answer: %s", target, err)}
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return &codeError{exitFailure, fmt.Sprintf("%s answers %s", target, resp.Status)}
			}
			return nil
		},
	}
}

// dialAddress is where to reach an address that somebody listens on.
func dialAddress(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if host == "" {
		host = "127.0.0.1"
	} else if addr, err := netip.ParseAddr(host); err == nil && addr.IsUnspecified() {
		host = "127.0.0.1"
		if addr.Is6() {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}
