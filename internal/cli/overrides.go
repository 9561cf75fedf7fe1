package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

func limitsFlag(cmd *cobra.Command, limits *[]string, usage string) {
	cmd.Flags().StringSliceVar(limits, "limit", nil, usage)
	noCompletion(cmd, "limit")
}

// parseOverrides reads --limit and --max-keys; nil where neither is given.
func parseOverrides(cmd *cobra.Command, limits []string, maxKeys string) (*admin.Overrides, error) {
	if !cmd.Flags().Changed("limit") && !cmd.Flags().Changed("max-keys") {
		return nil, nil
	}
	out := &admin.Overrides{}
	for _, l := range limits {
		limit, err := parseLimit(l)
		if err != nil {
			return nil, &usageError{cmd, "--limit: " + err.Error()}
		}
		out.Limits = append(out.Limits, limit)
	}
	switch n, err := strconv.Atoi(maxKeys); {
	case maxKeys == "":
	case maxKeys == "unlimited":
		out.MaxKeys = new(-1)
	case err != nil || n < -1:
		return nil, &usageError{cmd, `--max-keys must be a number or "unlimited"`}
	default:
		out.MaxKeys = &n
	}
	return out, nil
}

// shared ends a limit that all keys of an organization draw on.
const shared = ":shared"

// parseLimit reads NAME=REQUESTS/PER[@ZONE][:shared].
func parseLimit(s string) (admin.OverrideLimit, error) {
	text, isShared := strings.CutSuffix(s, shared)
	name, rest, found := strings.Cut(text, "=")
	requests, per, divided := strings.Cut(rest, "/")
	n, err := strconv.ParseInt(requests, 10, 64)
	per, zone, zoned := strings.Cut(per, "@")
	calendar := per == "day" || per == "month"
	if d, ok := parseAge(per); ok {
		per = d.String()
	} else if !calendar {
		divided = false
	}
	if !found || !divided || name == "" || err != nil || zoned && (!calendar || zone == "") {
		return admin.OverrideLimit{}, fmt.Errorf("%s is not NAME=REQUESTS/PER, such as minute=5000/1m, month=100000/month@Europe/Zurich or minute=5000/1m%s", quote(s), shared)
	}
	return admin.OverrideLimit{Name: name, Requests: n, Per: per, Timezone: zone, Shared: isShared}, nil
}

// parseAge reads a duration in Go's form, or whole days.
func parseAge(s string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil
	}
	d, err := time.ParseDuration(s)
	return d, err == nil
}

// shownLimits writes limits as --limit takes them.
func shownLimits(o *admin.Overrides) string {
	if o == nil {
		return ""
	}
	out := make([]string, len(o.Limits))
	for i, l := range o.Limits {
		out[i] = fmt.Sprintf("%s=%d/%s", l.Name, l.Requests, l.Per)
		if l.Timezone != "" {
			out[i] += "@" + l.Timezone
		}
		if l.Shared {
			out[i] += shared
		}
	}
	return strings.Join(out, ", ")
}

func shownMaxKeys(o *admin.Overrides) string {
	switch {
	case o == nil || o.MaxKeys == nil:
		return ""
	case *o.MaxKeys < 0:
		return "unlimited"
	}
	return strconv.Itoa(*o.MaxKeys)
}
