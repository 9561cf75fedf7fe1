package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"keygate/config"
	"keygate/internal/admin"
	"keygate/internal/server"
)

// Exit codes.
const (
	exitOK       = 0
	exitFailure  = 1
	exitUsage    = 2
	exitConfig   = 3
	exitRefused  = 4
	exitNotFound = 5
)

// usageError is a command line that makes no sense.
type usageError struct {
	cmd     *cobra.Command
	message string
}

func (e *usageError) Error() string { return e.message }

// codeError is an error with its exit code. An empty text prints nothing: the
// command has said what there is to say.
type codeError struct {
	code int
	text string
}

func (e *codeError) Error() string { return e.text }

// exit reports an error and returns the exit code. It is the one place that
// maps errors to codes; cmd is the command that failed.
func (a *app) exit(cmd *cobra.Command, err error) int {
	var (
		usage       *usageError
		code        *codeError
		invalid     *config.Error
		setup       *server.SetupError
		refused     *admin.APIError
		unreachable *admin.UnreachableError
		insecure    *admin.InsecureError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		a.say("keygate: %s\nRun '%s --help' to see how it is used.", usage.message, usage.cmd.CommandPath())
		return exitUsage
	case errors.As(err, &code):
		if code.text != "" {
			a.say("keygate: %s", code.text)
		}
		return code.code
	case errors.As(err, &invalid):
		for _, p := range invalid.Problems {
			a.say("%s", p)
		}
		return exitConfig
	case errors.As(err, &setup):
		a.say("keygate: %s", setup)
		return exitConfig
	case errors.As(err, &insecure):
		a.say("keygate: %s, or set KEYGATE_ADMIN_INSECURE=true if that network is trusted", insecure)
		return exitConfig
	case errors.Is(err, context.Canceled):
		a.say("keygate: interrupted")
		return exitFailure
	case errors.As(err, &unreachable):
		a.say("keygate: the management API at %s cannot be reached: %s\nIs keygate running? If it is elsewhere, set KEYGATE_ADMIN_URL.", unreachable.URL, unreachable.Err)
		return exitFailure
	case errors.As(err, &refused):
		return a.exitRefused(cmd, refused)
	}
	a.say("keygate: %s", err)
	return exitFailure
}

func (a *app) exitRefused(cmd *cobra.Command, e *admin.APIError) int {
	p := e.Problem
	switch {
	case e.Status == http.StatusNotFound && p.Detail == gateNotFound:
		a.say("keygate: %s\nKEYGATE_ADMIN_URL leads to the proxy; the management API has another port, 9090 unless KEYGATE_ADMIN_ADDR says otherwise.", e)
		return exitFailure
	case len(p.Errors) > 0:
		for _, f := range p.Errors {
			a.say("keygate: %s: %s", flagOf(cmd, f.Field), f.Detail)
		}
	case p.Error != "" && strings.Contains(strings.ToLower(e.Error()), strings.ToLower(p.Error)): // no need to say it twice
		a.say("keygate: %s", e)
	case p.Error != "":
		a.say("keygate: %s: %s", p.Error, e)
	default:
		a.say("keygate: %s\nDoes KEYGATE_ADMIN_URL lead to the management API?", e)
		return exitFailure
	}
	switch {
	case e.Status == http.StatusUnauthorized:
		a.say("KEYGATE_ADMIN_KEY must hold a key of this instance that is active.")
	case e.Status == http.StatusNotFound:
		return exitNotFound
	case e.Status >= 500:
		a.say("The log of keygate has more under request id %s.", p.RequestID)
		return exitFailure
	}
	return exitRefused
}

// gateNotFound is what the proxy, and never the management API, says of a path.
const gateNotFound = "No route covers this path."

var position = regexp.MustCompile(`\[\d+\]$`)

// flagOf names the flag that a field of a request was taken from, if the command
// has it.
func flagOf(cmd *cobra.Command, field string) string {
	name := position.ReplaceAllString(field, "")
	switch {
	case name == "allowed_cidrs":
		name = "allow-cidr"
	case name == "overrides", strings.HasPrefix(name, "overrides.limits"):
		name = "limit"
	}
	name, _, _ = strings.Cut(strings.ReplaceAll(strings.TrimPrefix(name, "overrides."), "_", "-"), ".")
	if cmd.Flags().Lookup(name) == nil {
		return field
	}
	return "--" + name
}

// say prints lines of talk. What is not printable in the arguments is escaped:
// much of it comes from elsewhere.
func (a *app) say(format string, args ...any) {
	for i, arg := range args {
		if _, number := arg.(int); !number {
			args[i] = printable(fmt.Sprint(arg))
		}
	}
	fmt.Fprintf(a.stderr, format+"\n", args...)
}
