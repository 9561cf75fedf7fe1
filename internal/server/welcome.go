package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"keygate/internal/keys"
)

// Names of the files in the data directory that hold generated keys where no
// terminal could show them.
const (
	adminKeyFile  = "bootstrap-key"
	clientKeyFile = "first-key"
)

// keepSecrets writes generated keys where only the owner of the data directory
// can read them.
func keepSecrets(dir string, b keys.Bootstrapped) error {
	for name, secret := range map[string]string{adminKeyFile: b.AdminSecret, clientKeyFile: b.ClientSecret} {
		if secret == "" {
			continue
		}
		if err := writeSecret(filepath.Join(dir, name), secret); err != nil {
			return fmt.Errorf("the generated key could not be kept: %w", err)
		}
	}
	return nil
}

// dropSecrets removes what keepSecrets wrote.
func dropSecrets(dir string) error {
	var errs []error
	for _, name := range []string{adminKeyFile, clientKeyFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("a generated key that is not valid could not be removed: %w", err))
		}
	}
	return errors.Join(errs...)
}

// writeSecret leaves either the whole file, on the disk, or none.
func writeSecret(path, secret string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the first error is the one to report
		}
	}()
	if _, err = f.WriteString(secret + "\n"); err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// welcome says, once in an instance's life, how to use it.
func welcome(w io.Writer, b keys.Bootstrapped, dir, proxyURL, adminURL string, terminal bool) error {
	admin, client := b.AdminSecret, b.ClientSecret
	var text strings.Builder
	text.WriteString("\nkeygate is running for the first time.\n\n")
	if terminal {
		fmt.Fprintf(&text, "Administrator key (shown only now, keep it): %s\n", admin)
	} else {
		path := filepath.Join(dir, adminKeyFile)
		fmt.Fprintf(&text, "Administrator key: in the file %s (move it to a safe place)\n", path)
		admin, client = "$(cat "+shellWord(path)+")", "$(cat "+shellWord(filepath.Join(dir, clientKeyFile))+")"
	}
	text.WriteString("\nTry it:\n\n")
	if b.ClientSecret != "" {
		fmt.Fprintf(&text, "  # 200: a client key passes the gate\n  curl -i -H \"Authorization: Bearer %s\" %s/hello\n\n", client, proxyURL)
		fmt.Fprintf(&text, "  # 401: nobody passes without one\n  curl -i %s/hello\n\n", proxyURL)
	}
	fmt.Fprintf(&text, "  # make a key\n  curl -i -H \"Authorization: Bearer %s\" -H \"Content-Type: application/json\" -d '{\"name\":\"my key\"}' %s/v1/keys\n\n", admin, adminURL)
	_, err := io.WriteString(w, text.String())
	return err
}

// shellWord quotes a path for the inside of a command substitution.
func shellWord(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
