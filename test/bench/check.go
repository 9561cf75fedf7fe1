package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"keygate/internal/keys"
)

// Whoever does not do the work must not be measured. Each check is a connection
// of its own.

// checkForwards wants the upstream's whole answer.
func checkForwards(ctx context.Context, s subject) error {
	for _, request := range []string{s.Requests[0], s.Requests[len(s.Requests)-1]} {
		_, secret, _ := strings.Cut(strings.TrimSpace(request), "Bearer ")
		if _, err := call(ctx, s.Addr, secret, http.StatusOK, body); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// checkRefuses wants a 401 without a key, with one that does not exist, and
// with what is none.
func checkRefuses(ctx context.Context, s subject) error {
	format, err := keys.NewFormat(keys.DefaultPrefix)
	if err != nil {
		return err
	}
	for _, secret := range []string{"", format.Generate(), "wrong"} {
		if _, err := call(ctx, s.Addr, secret, http.StatusUnauthorized, ""); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// checkGateway also wants permissions checked and limits counted.
func checkGateway(ctx context.Context, g *gateway, plan string) error {
	s := g.subject(g.child.name, plan)
	if err := errors.Join(checkForwards(ctx, s), checkRefuses(ctx, s)); err != nil {
		return err
	}
	if _, err := call(ctx, s.Addr, g.narrow, http.StatusForbidden, ""); err != nil {
		return err
	}
	h, err := call(ctx, s.Addr, g.secret[plan][0], http.StatusOK, body)
	if err != nil {
		return err
	}
	limits := map[string]int{"one": 1, "two": 2, "four": 4}[plan]
	if got := strings.Count(h.Get("Ratelimit"), ";r=999999999"); got != limits {
		return fmt.Errorf("%d limits were counted, not %d: RateLimit is %q", got, limits, h.Get("Ratelimit"))
	}
	return nil
}

// call sends one request and checks its answer; an empty want stands for any body.
func call(ctx context.Context, addr, secret string, status int, want string) (http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return nil, err
	}
	r.Close = true
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != status || want != "" && string(got) != want {
		return nil, fmt.Errorf("the answer is %d with %d bytes, not %d", res.StatusCode, len(got), status)
	}
	return res.Header, nil
}
