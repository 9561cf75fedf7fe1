package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"keygate/config"
	"keygate/proxy/route"
)

func (a *app) routesCommand() *cobra.Command {
	return group("routes", "Look at the policy's routes", a.routesCheck(), a.routesExplain())
}

// loadPolicy reads a policy file, or what the environment configures. Of the
// environment only what a policy depends on counts: a policy can be checked on
// a machine that is not set up to serve.
func loadPolicy(env []string, file string) (*config.Policy, error) {
	var relevant []string
	for _, e := range env {
		switch name, _, _ := strings.Cut(e, "="); name {
		case "KEYGATE_UPSTREAM", "KEYGATE_DEFAULT_PLAN":
			relevant = append(relevant, e)
		case "KEYGATE_POLICY", "KEYGATE_POLICY_FILE":
			if file == "" {
				relevant = append(relevant, e)
			}
		}
	}
	if file != "" {
		relevant = append(relevant, "KEYGATE_POLICY_FILE="+file)
	}
	c, _, err := config.FromEnv(relevant)
	if err != nil {
		return nil, err
	}
	return config.LoadPolicy(c)
}

// shownRule is a rule as tables and -o show it.
type shownRule struct {
	Match        string   `json:"match"`
	Upstream     string   `json:"upstream"`
	Permission   []string `json:"permission,omitempty"`
	Any          bool     `json:"any,omitempty"`
	Public       string   `json:"public,omitempty"`
	Organization string   `json:"organization,omitempty"`
	Space        string   `json:"space,omitempty"`
}

func showRule(r *route.Rule, p *config.Policy) shownRule {
	out := shownRule{
		Match: r.Pattern.String(), Upstream: upstreamOf(r, p), Permission: r.Permissions, Any: r.Any,
		Organization: bindingOf(r.Organization), Space: bindingOf(r.Space),
	}
	if r.Public != nil {
		out.Public = fmt.Sprintf("%d/%s per address", r.Public.Requests, brief(r.Public.Per))
	}
	return out
}

// needs says in words what a caller must hold.
func (r shownRule) needs() string {
	switch {
	case r.Public != "":
		return "no key (" + r.Public + ")"
	case r.Any:
		return "any valid key"
	}
	return strings.Join(r.Permission, " and ")
}

func upstreamOf(r *route.Rule, p *config.Policy) string {
	u := p.Upstreams[r.Upstream]
	if len(u.Targets) == 0 {
		return "the demonstration API"
	}
	targets := make([]string, len(u.Targets))
	for i, target := range u.Targets {
		targets[i] = target.Redacted()
	}
	if u.Name == config.OwnUpstream {
		return targets[0]
	}
	return u.Name + " (" + strings.Join(targets, ", ") + ")"
}

func bindingOf(b *route.Binding) string {
	if b == nil {
		return ""
	}
	switch b.Source {
	case route.FromHeader:
		return "header:" + b.Name
	case route.FromQuery:
		return "query:" + b.Name
	}
	return "path:" + b.Name
}

func (a *app) routesCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check [FILE]", Short: "Check a policy and list its routes",
		Long: `Checks a policy file, or without one what KEYGATE_POLICY_FILE or KEYGATE_POLICY has, and lists the routes.
Every problem is reported with file, line and column; the exit code is then 3.`,
		Example: "  keygate routes check policy.yaml",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return arguments("FILE")(cmd, args)
			}
			return nil
		},
	}
	output := outputFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		file := ""
		if len(args) == 1 {
			if file = args[0]; file == "" {
				return &usageError{cmd, "FILE is empty"}
			}
		}
		p, err := loadPolicy(a.env, file)
		if err != nil {
			return err
		}
		rules := []shownRule{}
		for _, r := range p.Rules {
			rules = append(rules, showRule(r, p))
		}
		return printList(a, *output, rules, []column[shownRule]{
			{"Match", func(r shownRule) string { return r.Match }},
			{"Upstream", func(r shownRule) string { return r.Upstream }},
			{"Needs", shownRule.needs},
			{"Organization", func(r shownRule) string { return r.Organization }},
			{"Space", func(r shownRule) string { return r.Space }},
		})
	}
	return cmd
}

// explanation is what would become of a request.
type explanation struct {
	Request string `json:"request"`
	Host    string `json:"host,omitempty"`
	// Rule is the one that covers the request; nil: it is refused with Status.
	Rule   *shownRule `json:"rule,omitempty"`
	Status int        `json:"status,omitempty"`
	Allow  string     `json:"allow,omitempty"`
	Reason string     `json:"reason"`
}

func (a *app) routesExplain() *cobra.Command {
	var host string
	cmd := &cobra.Command{
		Use: "explain METHOD PATH", Short: "Say which rule covers a request",
		Long: `Says which rule of the configured policy covers a request, where it would go and what it needs.
Without a rule it says what the client is answered; the exit code is then 5. The path is given as a client sends it, with its query if it has one.`,
		Example: "  keygate routes explain GET /v1/orders\n  keygate routes explain POST /v1/orders --host api.example.com",
		Args:    arguments("METHOD", "PATH"),
	}
	cmd.Flags().StringVar(&host, "host", "", "Host header of the request")
	output := outputFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		p, err := loadPolicy(a.env, "")
		if err != nil {
			return err
		}
		e := explain(p, strings.ToUpper(args[0]), host, args[1])
		err = printOne(a, *output, e, []column[explanation]{
			{"Request", func(e explanation) string { return e.Request }},
			{"Host", func(e explanation) string { return e.Host }},
			{"Rule", ofRule(func(r shownRule) string { return r.Match })},
			{"Upstream", ofRule(func(r shownRule) string { return r.Upstream })},
			{"Needs", ofRule(shownRule.needs)},
			{"Organization", ofRule(func(r shownRule) string { return r.Organization })},
			{"Space", ofRule(func(r shownRule) string { return r.Space })},
			{"Answer", func(e explanation) string {
				if e.Status == 0 {
					return ""
				}
				return fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
			}},
			{"Allow", func(e explanation) string { return e.Allow }},
			{"Reason", func(e explanation) string { return e.Reason }},
		})
		if err == nil && e.Rule == nil {
			return &codeError{exitNotFound, ""}
		}
		return err
	}
	return cmd
}

func ofRule(show func(shownRule) string) func(explanation) string {
	return func(e explanation) string {
		if e.Rule == nil {
			return ""
		}
		return show(*e.Rule)
	}
}

func explain(p *config.Policy, method, host, target string) explanation {
	e := explanation{Request: method + " " + target, Host: host}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		e.Status, e.Reason = http.StatusBadRequest, "the target is not a path that starts with a slash, or holds what must be encoded"
		return e
	}
	if wrong := route.CheckPath(u); wrong != "" {
		e.Status, e.Reason = http.StatusBadRequest, wrong
		return e
	}
	m := p.Table.Match(method, host, u.Path)
	switch {
	case m.Rule != nil:
		rule := showRule(m.Rule, p)
		e.Rule, e.Reason = &rule, "the most specific rule that matches"
	case m.PathKnown:
		e.Status, e.Allow, e.Reason = http.StatusMethodNotAllowed, p.Table.Allow(host, u.Path), "rules match the path, but none of them the method"
	default:
		e.Status, e.Reason = http.StatusNotFound, "no rule matches the path"
	}
	return e
}
