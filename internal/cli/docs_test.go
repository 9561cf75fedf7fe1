package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/cli.md")

var reference = filepath.Join("..", "..", "docs", "cli.md")

// The reference is made from the commands themselves.
func TestReferenceIsInStep(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	root := (&app{version: "dev"}).root()
	root.InitDefaultCompletionCmd()
	fmt.Fprintf(&b, "# Command line\n\nMade from the commands by `go test ./internal/cli -run Reference -update`.\n\n%s\n", root.Long)
	eachCommand(root, func(c *cobra.Command) { describe(&b, c) })
	if *update {
		if err := os.WriteFile(reference, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Error("docs/cli.md differs from the commands: run go test ./internal/cli -run Reference -update")
	}
}

// eachCommand visits what does something itself. Of the commands that have others
// only those have an example.
func eachCommand(c *cobra.Command, visit func(*cobra.Command)) {
	if c.HasParent() && (!c.HasAvailableSubCommands() || c.Example != "") && c.IsAvailableCommand() && c.Name() != "help" && c.Parent().Name() != "completion" {
		visit(c)
	}
	if c.Name() == "completion" {
		visit(c)
		return
	}
	for _, sub := range c.Commands() {
		eachCommand(sub, visit)
	}
}

func describe(b *bytes.Buffer, c *cobra.Command) {
	fmt.Fprintf(b, "\n## %s\n\n", c.CommandPath())
	text := c.Long
	if text == "" || c.Name() == "completion" {
		text = c.Short + "."
	}
	usage := c.CommandPath() + strings.TrimPrefix(c.Use, c.Name())
	if c.Name() == "completion" {
		usage += " bash|fish|powershell|zsh"
	}
	fmt.Fprintf(b, "%s\n\n```\n%s\n```\n", text, usage)
	var flags []string
	c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		if f.Name != "help" {
			flags = append(flags, fmt.Sprintf("| %s | %s |\n", name, f.Usage))
		}
	})
	if len(flags) > 0 {
		fmt.Fprintf(b, "\n| Flag | |\n|---|---|\n%s", strings.Join(flags, ""))
	}
	if c.Example != "" {
		fmt.Fprintf(b, "\n```sh\n%s\n```\n", strings.ReplaceAll(strings.TrimPrefix(c.Example, "  "), "\n  ", "\n"))
	}
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	t.Parallel()
	root := (&app{}).root()
	eachCommand(root, func(c *cobra.Command) {
		if c.Example == "" || c.Short == "" {
			t.Errorf("%s has no example or description", c.CommandPath())
		}
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		r := run(t, nil, args...)
		if r.code != exitOK || r.stderr != "" || !strings.Contains(r.stdout, "Examples:\n"+c.Example) {
			t.Errorf("%s: %+v", strings.Join(args, " "), r)
		}
	})
	for _, args := range [][]string{{"--help"}, {"help"}, {"help", "keys"}, {"keys", "--help"}, {"--version"}, {"version"}, {"completion", "bash"}, {"completion", "zsh"}} {
		if r := run(t, nil, args...); r.code != exitOK || r.stdout == "" || r.stderr != "" {
			t.Errorf("%v: %d %q", args, r.code, r.stderr)
		}
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	r := run(t, nil, "__complete", "keys", "list", "-o", "")
	if r.code != exitOK || !strings.HasPrefix(r.stdout, "table\njson\nyaml\n") {
		t.Errorf("%+v", r)
	}
}
