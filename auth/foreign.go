package auth

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"keygate/internal/keys"
)

// formsFor is how long declared forms are used without being read anew while the
// change feed is silent.
const formsFor = time.Second

// declaredForms are the forms of keys that were made elsewhere, as an import
// declared them.
type declaredForms struct {
	forms []keys.Form
	stamp stamp
	read  time.Time
}

// foreign reports whether a token that is not of this instance's own format has
// one that an import declared. Nothing else is ever looked up.
func (c *cache) foreign(ctx context.Context, token string) (bool, error) {
	d, err := c.declared(ctx)
	if err != nil { // it may be a good key: it cannot be said to be invalid
		return false, err
	}
	return slices.ContainsFunc(d.forms, func(f keys.Form) bool { return f.Has(token) }), nil
}

// declared returns the declared forms. Where they cannot be read anew those that
// were known are as good: forms are only ever added.
func (c *cache) declared(ctx context.Context) (*declaredForms, error) {
	d := c.forms.Load()
	if d != nil && c.stamps.holds(&d.stamp) && (c.isFresh() || c.now().Sub(d.read) <= formsFor) {
		return d, nil
	}
	read, err := c.readForms(ctx)
	if err != nil && d != nil {
		return d, nil
	}
	return read, err
}

// LooksFor reports whether the gate would look for a token at all: it has this
// instance's own format, or one that an import declared. An error means that the
// declared ones are not known.
func (a *Authenticator) LooksFor(ctx context.Context, token string) (bool, error) {
	switch {
	case a.format.Valid(token):
		return true, nil
	case strings.HasPrefix(token, a.format.Prefix()+"_"):
		return false, nil // ours, but mistyped: no form with our prefix can be declared
	}
	return a.cache.foreign(ctx, token)
}

// looksForImported reports whether the gate may find an imported secret of which
// only this beginning is known; an empty one says nothing.
func (a *Authenticator) looksForImported(ctx context.Context, prefix string) (bool, error) {
	if prefix == "" || prefix == a.format.Prefix() || strings.HasPrefix(prefix, a.format.Prefix()+"_") {
		return true, nil
	}
	declared, err := a.cache.declared(ctx)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(declared.forms, func(f keys.Form) bool {
		return strings.HasPrefix(f.Prefix, prefix) || strings.HasPrefix(prefix, f.Prefix)
	}), nil
}

// readForms asks the store once for all who want to know at the same time.
func (c *cache) readForms(ctx context.Context) (*declaredForms, error) {
	epoch := c.stamps.epoch.Load()
	flight := string(binary.BigEndian.AppendUint64([]byte("forms"), epoch))
	result := c.flights.DoChan(flight, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
		defer cancel()
		d := &declaredForms{stamp: c.stamps.take(keys.FormsSetting), read: c.now()}
		var err error
		if d.forms, _, err = keys.Forms(ctx, c.store); err != nil {
			c.stats.Failures.Add(1)
			return nil, err
		}
		if c.stamps.epoch.Load() == epoch {
			c.forms.Store(d)
		}
		return d, nil
	})
	select {
	case r := <-result:
		d, _ := r.Val.(*declaredForms)
		return d, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// remembers reports whether a key with a secret of this hash is in memory.
func (c *cache) remembers(h keys.Hash) bool {
	e, ok := c.found.GetIfPresent(h)
	return ok && c.stamps.holds(&e.stamp)
}
