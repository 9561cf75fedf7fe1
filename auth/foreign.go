package auth

import (
	"context"
	"encoding/binary"
	"slices"
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
	d := c.forms.Load()
	if d == nil || !c.stamps.holds(&d.stamp) || !c.isFresh() && c.now().Sub(d.read) > formsFor {
		read, err := c.readForms(ctx)
		switch {
		case err == nil:
			d = read
		case d == nil: // it may be a good key: it cannot be said to be invalid
			return false, err
		} // else those that were known: forms are only ever added
	}
	return slices.ContainsFunc(d.forms, func(f keys.Form) bool { return f.Has(token) }), nil
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
