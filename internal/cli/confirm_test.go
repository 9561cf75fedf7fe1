package cli

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"keygate/internal/admin"
)

// A terminal is asked; what is typed decides.
func TestConfirmation(t *testing.T) {
	t.Parallel()
	in := start(t)
	for typed, code := range map[string]int{"y\n": exitOK, " YES \n": exitOK, "n\n": exitFailure, "\n": exitFailure, "": exitFailure, "yesterday\n": exitFailure} {
		k := decoded[admin.CreatedKey](t, in.must("keys", "create", "--name", "victim", "-o", "json"))
		var stdout, stderr bytes.Buffer
		a := &app{env: in.env, stdin: strings.NewReader(typed), stdout: &stdout, stderr: &stderr, terminal: func(any) bool { return true }}
		if got := a.run(t.Context(), []string{"keys", "delete", k.ID}); got != code {
			t.Errorf("typed %q: exit %d, want %d: %s", typed, got, code, &stderr)
		}
		if !strings.Contains(stderr.String(), `Delete the key "victim" (`+k.ID) {
			t.Errorf("asked %q", &stderr)
		}
		gone := in.run("keys", "get", k.ID).code == exitNotFound
		if gone != (code == exitOK) {
			t.Errorf("typed %q: gone is %v", typed, gone)
		}
		if !gone {
			in.must("keys", "delete", k.ID, "--yes")
		}
	}
}

// Somebody who thinks twice at the question can leave with Ctrl-C.
func TestInterruptedQuestion(t *testing.T) {
	t.Parallel()
	in := start(t)
	k := decoded[admin.CreatedKey](t, in.must("keys", "create", "--name", "a", "-o", "json"))
	ctx, cancel := context.WithCancel(t.Context())
	stdin, w := io.Pipe()
	defer w.Close()
	stderr := &notified{on: "[y/N]", then: cancel}
	a := &app{env: in.env, stdin: stdin, stdout: io.Discard, stderr: stderr, terminal: func(any) bool { return true }}
	if code := a.run(ctx, []string{"keys", "revoke", k.ID}); code != exitFailure || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// notified calls back when something was written.
type notified struct {
	bytes.Buffer
	on   string
	then func()
}

func (n *notified) Write(b []byte) (int, error) {
	defer func() {
		if strings.Contains(n.String(), n.on) {
			n.then()
		}
	}()
	return n.Buffer.Write(b)
}
