package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// FormsSetting is the name of the setting that lists the forms of foreign keys.
const FormsSetting = "forms"

// maxForms bounds how many forms one instance looks for.
const maxForms = 16

// Form describes keys that were made elsewhere and imported: what is not of
// this instance's own format is looked up only if it has a declared form.
type Form struct {
	// Prefix is what they start with; at least 3 characters, so that not just
	// anything is looked up.
	Prefix string `json:"prefix"`
	// Min and Max bound the length of the whole key, in bytes.
	Min int `json:"min"`
	Max int `json:"max"`
}

// Validate reports what is wrong with a form.
func (f Form) Validate() error {
	var c check
	if len(f.Prefix) < 3 || len(f.Prefix) > maxPrefix || strings.ContainsFunc(f.Prefix, func(r rune) bool { return r <= ' ' || r > '~' }) {
		c.add("form.prefix", f.Prefix, "must be 3 to %d visible ASCII characters without spaces", maxPrefix)
	}
	if f.Min < 16 || f.Max > 512 || f.Min > f.Max || f.Min <= len(f.Prefix) {
		c.add("form.length", "", "must lie within 16 to 512 characters and be longer than the prefix")
	}
	return c.err()
}

// Has reports whether a token has the form.
func (f Form) Has(token string) bool {
	return len(token) >= f.Min && len(token) <= f.Max && strings.HasPrefix(token, f.Prefix)
}

// Forms reads those that are declared.
func Forms(ctx context.Context, s interface {
	Setting(ctx context.Context, name string) (Setting, error)
},
) ([]Form, Setting, error) {
	setting, err := s.Setting(ctx, FormsSetting)
	if errors.Is(err, ErrNotFound) {
		return nil, Setting{Name: FormsSetting}, nil
	}
	if err != nil {
		return nil, setting, err
	}
	var forms []Form
	if err := json.Unmarshal([]byte(setting.Value), &forms); err != nil {
		return nil, setting, fmt.Errorf("the setting %q is not readable: %w", FormsSetting, err)
	}
	return forms, setting, nil
}

// withForm adds a form to the setting; changed is false if it is there.
func withForm(forms []Form, setting Setting, f Form) (Setting, bool, error) {
	if slices.Contains(forms, f) {
		return setting, false, nil
	}
	if len(forms) >= maxForms {
		var c check
		c.add("form", f.Prefix, "is one too many: %d forms of foreign keys are declared already", maxForms)
		return setting, false, c.err()
	}
	b, err := json.Marshal(append(slices.Clone(forms), f))
	if err != nil {
		return setting, false, err
	}
	setting.Value = string(b)
	return setting, true, nil
}
