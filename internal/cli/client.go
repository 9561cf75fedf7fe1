package cli

import (
	"keygate/config"
	"keygate/internal/admin"
)

// client makes the client of the management API that the environment describes.
func (a *app) client() (*admin.Client, error) {
	c, err := config.ClientFromEnv(a.env)
	if err != nil {
		return nil, err
	}
	if c.Key.Reveal() == "" {
		return nil, &codeError{exitConfig, "KEYGATE_ADMIN_KEY is not set: it holds a key with keygate:operator. " +
			"The first start of keygate shows one, or writes it to the file bootstrap-key in its data directory, which KEYGATE_ADMIN_KEY_FILE can name"}
	}
	return &admin.Client{
		URL: c.URL, Key: c.Key.Reveal(), Insecure: c.Insecure,
		UserAgent: "keygate/" + a.version,
	}, nil
}
