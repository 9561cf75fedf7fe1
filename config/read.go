package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

const (
	ownPrefix = "KEYGATE_"
	maxSecret = 64 << 10
)

// setting is one variable of the environment as the tags of Config and Client
// describe it.
type setting struct {
	field, name, standard, allowed, doc string
}

func settingsOf(t reflect.Type) []setting {
	var out []setting
	for f := range t.Fields() {
		if name := f.Tag.Get("env"); name != "" {
			out = append(out, setting{f.Name, name, f.Tag.Get("envDefault"), f.Tag.Get("allowed"), f.Tag.Get("doc")})
		}
	}
	return out
}

// reading collects what is wrong with an environment: at most one problem for
// each variable.
type reading struct {
	vars     map[string]string
	settings []setting
	failed   map[string]bool
	problems []Problem
	warnings []string
}

// read fills the struct that into points to from the environment.
func read(environ []string, into any) *reading {
	r := &reading{vars: make(map[string]string), failed: make(map[string]bool)}
	r.settings = settingsOf(reflect.TypeOf(into).Elem())
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok && name != "" {
			r.vars[name] = value
		}
	}
	given := make(map[string]string)
	for _, s := range r.settings {
		value, ok := r.vars[s.name]
		switch {
		case ok && strings.TrimSpace(value) == "":
			r.reject(s.name, "is set but empty: unset it or give it a value; allowed: "+s.allowed)
		case ok:
			given[s.name] = value
		}
	}
	r.checkNames()
	err := env.ParseWithOptions(into, env.Options{Environment: given, FuncMap: parsers()})
	if all, ok := errors.AsType[env.AggregateError](err); ok {
		for _, err := range all.Errors {
			wrong, ok := errors.AsType[env.ParseError](err)
			if i := slices.IndexFunc(r.settings, func(s setting) bool { return s.field == wrong.Name }); ok && i >= 0 {
				r.checkErr(r.settings[i].name, wrong.Err)
				continue
			}
			r.problems = append(r.problems, Problem{Message: err.Error()})
		}
	}
	return r
}

// injected are the variables that Kubernetes sets in every pod for a Service
// named keygate, or keygate-something: nobody wrote them.
// https://kubernetes.io/docs/tutorials/services/connect-applications-service/
//
// KEYGATE_PORT is one of them if it holds a URL; a bare number is somebody's
// misspelling of PORT.
var injected = regexp.MustCompile(`^KEYGATE_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// checkNames refuses names under KEYGATE_ that mean nothing: a misspelt
// variable must not quietly leave its default in force.
func (r *reading) checkNames() {
	known := KnownVariables()
	var ignored []string
	for name, value := range r.vars {
		switch {
		case !strings.HasPrefix(name, ownPrefix) || slices.Contains(known, name):
		case injected.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://"):
			ignored = append(ignored, name)
		case name == "KEYGATE_PORT":
			r.reject(name, "is unknown; the port of the proxy is PORT, or part of KEYGATE_ADDR")
		case !isPrintable(name) || len(name) > maxShown:
			r.reject(quoted(name), "is unknown")
		default:
			r.reject(name, "is unknown"+didYouMean(name, known))
		}
	}
	if len(ignored) > 0 {
		slices.Sort(ignored)
		r.warnings = append(r.warnings, "ignored, because Kubernetes sets them for a Service named keygate: "+strings.Join(ignored, ", "))
	}
}

// KnownVariables lists every variable that keygate knows.
func KnownVariables() []string {
	var names []string
	for _, s := range slices.Concat(settingsOf(reflect.TypeFor[Config]()), settingsOf(reflect.TypeFor[Client]())) {
		if !slices.Contains(names, s.name) { // server and command line share one
			names = append(names, s.name)
		}
	}
	return names
}

// reject reports a variable unless it has a problem already: what comes later
// is mostly a consequence.
func (r *reading) reject(name, message string) {
	if r.failed[name] {
		return
	}
	r.failed[name] = true
	r.problems = append(r.problems, Problem{Subject: name, Message: message})
}

// check reports a variable with its value and what is allowed.
func (r *reading) check(name string, ok bool, problem string) {
	if !ok {
		r.fail(name, problem, "")
	}
}

func (r *reading) fail(name, problem, hint string) {
	i := slices.IndexFunc(r.settings, func(s setting) bool { return s.name == name })
	r.reject(name, fmt.Sprintf("%s %s; allowed: %s%s", quoted(redacted(r.vars[name])), problem, r.settings[i].allowed, hint))
}

// choice wants one of a few words where the variable is set.
func (r *reading) choice(name, value, problem string, words ...string) {
	if value != "" && !slices.Contains(words, value) {
		r.fail(name, problem, didYouMean(value, words))
	}
}

func (r *reading) checkErr(name string, err error) {
	if err != nil {
		r.check(name, false, err.Error())
	}
}

// exclusive refuses two variables that answer the same question.
func (r *reading) exclusive(a, b string) {
	if r.vars[a] != "" && r.vars[b] != "" {
		r.reject(a, "is set together with "+b+": unset one of them")
	}
}

// err returns the problems in the order of the reference, unknown names last.
func (r *reading) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	known := KnownVariables()
	rank := func(p Problem) int {
		if i := slices.Index(known, p.Subject); i >= 0 {
			return i
		}
		return len(known)
	}
	slices.SortFunc(r.problems, func(a, b Problem) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a.Subject, b.Subject)
	})
	return &Error{Problems: r.problems}
}

// readBounded reads a file of at most so many bytes.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("it is larger than %d bytes", most)
	}
	return data, nil
}
