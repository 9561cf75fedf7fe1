package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
)

// The table in the documentation is what the program prints.
func TestComparedLimiters(t *testing.T) {
	var table bytes.Buffer
	if err := compareLimiters(&table); err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(docs), "\n\n"+table.String()+"\n") {
		t.Errorf("docs/limits.md does not have the table that go run ./test/bench -limiters prints:\n%s", &table)
	}
}

// What the worst cases are measured with: windows have their beginning and not their end.
func TestFullest(t *testing.T) {
	for _, c := range []struct {
		admitted []time.Duration
		most     int
	}{{nil, 0}, {[]time.Duration{0, 10}, 1}, {[]time.Duration{0, 9}, 2}, {[]time.Duration{0, 5, 5, 12, 14, 15}, 4}} {
		if got := fullest(c.admitted, 10); got != c.most {
			t.Errorf("%v: %d, want %d", c.admitted, got, c.most)
		}
	}
}
