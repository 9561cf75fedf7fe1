package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"keygate/ratelimit"
)

// limitsOf are n limits of a key and, from two on, of its organization.
func limitsOf(n, i int) []ratelimit.Limit {
	key, org := fmt.Sprint("key_", i), fmt.Sprint("org_", i)
	return []ratelimit.Limit{
		{Name: "minute", Holder: key, Quota: ratelimit.MaxQuota, Per: time.Minute},
		{Name: "org", Holder: org, Quota: ratelimit.MaxQuota, Per: time.Minute},
		{Name: "hour", Holder: key, Quota: ratelimit.MaxQuota, Per: time.Hour},
		{Name: "day", Holder: org, Quota: ratelimit.MaxQuota, Per: 24 * time.Hour},
	}[:n]
}

func takeOf(limits, i int) []ratelimit.Ask {
	return []ratelimit.Ask{{Organization: fmt.Sprint("org_", i), Key: fmt.Sprint("key_", i), Limits: limitsOf(limits, i), Take: 1, Cost: 1}}
}

// charged makes holders that have so many charges of each limit.
func charged(tb testing.TB, l *Ledger, client goredis.UniversalClient, holders, limits, charges int) {
	tb.Helper()
	grants := make([]ratelimit.Grant, 1)
	for range charges {
		if err := l.Lease(context.Background(), takeOf(limits, 0), grants); err != nil {
			tb.Fatal(err)
		}
	}
	_, err := client.Pipelined(context.Background(), func(p goredis.Pipeliner) error {
		of := newNames("org_0", "key_0")
		for i := 1; i < holders && charges > 0; i++ {
			to := newNames(fmt.Sprint("org_", i), "")
			p.Do(context.Background(), "COPY", of.holder("key_0"), to.holder(fmt.Sprint("key_", i)))
			if limits > 1 {
				p.Do(context.Background(), "COPY", of.holder("org_0"), to.holder(fmt.Sprint("org_", i)))
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// serverCost is what Redis says it spent on one EVALSHA since the last CONFIG RESETSTAT.
func serverCost(tb testing.TB, client goredis.UniversalClient) float64 {
	tb.Helper()
	info, err := client.Info(context.Background(), "commandstats").Result()
	if err != nil {
		tb.Fatal(err)
	}
	_, line, ok := strings.Cut(info, "cmdstat_evalsha:")
	_, line, _ = strings.Cut(line, "usec_per_call=")
	line, _, _ = strings.Cut(line, ",")
	cost, err := strconv.ParseFloat(line, 64)
	if !ok || err != nil {
		tb.Fatalf("no EVALSHA in %s", info)
	}
	return cost
}

// What one take costs Redis: with charges already there, and on a key in
// constant use, where each take adds a charge to 64 and merges two.
func BenchmarkTake(b *testing.B) {
	server := startBench(b)
	for _, limits := range []int{1, 2, 4} {
		for _, charges := range []int{0, 1, 60, 64} {
			name := fmt.Sprintf("limits=%d/charges=%d", limits, charges)
			if charges == 64 {
				name = fmt.Sprintf("limits=%d/merging", limits)
			}
			b.Run(name, func(b *testing.B) {
				client := server.client(b)
				l := used(b, client)
				charged(b, l, client, b.N, limits, charges)
				if err := client.ConfigResetStat(context.Background()).Err(); err != nil {
					b.Fatal(err)
				}
				grants := make([]ratelimit.Grant, 1)
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					if err := l.Lease(context.Background(), takeOf(limits, i), grants); err != nil || grants[0].Taken != 1 {
						b.Fatalf("%+v, %v", grants[0], err)
					}
				}
				b.StopTimer()
				b.ReportMetric(serverCost(b, client), "redis-µs/op")
				size := client.StrLen(context.Background(), newNames("org_0", "").holder("key_0")).Val()
				b.ReportMetric(float64(size), "value-B")
				if err := client.FlushDB(context.Background()).Err(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// What the gateway spends on making one ask.
func BenchmarkAsked(b *testing.B) {
	s := newScript(markerSource + holderSource + leaseSource)
	for _, limits := range []int{1, 4} {
		b.Run(fmt.Sprintf("limits=%d", limits), func(b *testing.B) {
			asks := takeOf(limits, 0)
			b.ReportAllocs()
			for b.Loop() {
				newCall(context.Background(), s.asked(&asks[0], modeLease))
			}
		})
	}
}

// What a refusal costs: nothing is written.
func BenchmarkDenied(b *testing.B) {
	server := startBench(b)
	client := server.client(b)
	l := used(b, client)
	grants := make([]ratelimit.Grant, 1)
	asks := takeOf(1, 0)
	asks[0].Limits[0].Quota, asks[0].Limits[0].Per = 60, time.Hour
	for range 60 {
		if err := l.Lease(context.Background(), asks, grants); err != nil {
			b.Fatal(err)
		}
	}
	client.ConfigResetStat(context.Background())
	for b.Loop() {
		if err := l.Lease(context.Background(), asks, grants); err != nil || grants[0].Taken != 0 {
			b.Fatalf("%+v, %v", grants[0], err)
		}
	}
	b.ReportMetric(serverCost(b, client), "redis-µs/op")
}

// What one round of a lease costs Redis, which reports and asks for more, on
// windows and on a calendar quota beside them.
func BenchmarkLease(b *testing.B) {
	server := startBench(b)
	for _, n := range []int{1, 2, 4} {
		for _, quota := range []bool{false, true} {
			b.Run(fmt.Sprintf("limits=%d/quota=%v", n, quota), func(b *testing.B) {
				client := server.client(b)
				l := used(b, client)
				a := takeOf(n, 0)[0]
				if quota {
					last := &a.Limits[n-1]
					*last = ratelimit.Limit{Name: "month", Holder: last.Holder, Quota: last.Quota, Period: ratelimit.Month}.In(time.Now())
				}
				a.Session, a.NextSession, a.Take, a.Want = "rep_a.1", "rep_a.2", 0, 100
				grants := make([]ratelimit.Grant, 1)
				asks := []ratelimit.Ask{a}
				client.ConfigResetStat(context.Background())
				for b.Loop() {
					if err := l.Lease(context.Background(), asks, grants); err != nil || grants[0].Status != ratelimit.Granted {
						b.Fatalf("%+v, %v", grants[0], err)
					}
					asks[0].Spent, asks[0].Seen = grants[0].Leased-50, grants[0].Leased
				}
				b.ReportMetric(serverCost(b, client), "redis-µs/op")
			})
		}
	}
}

// What it costs Redis to know at each call whether it is the process that decided
// last: a take with and without the look at INFO.
func BenchmarkMarker(b *testing.B) {
	server := startBench(b)
	const look = "info('server', 'run_id')"
	if strings.Count(markerSource, look) != 1 {
		b.Fatalf("the script has not one %s", look)
	}
	for _, with := range []bool{true, false} {
		b.Run(fmt.Sprintf("info=%v", with), func(b *testing.B) {
			client := server.client(b)
			l := used(b, client)
			if !with {
				run := client.Get(context.Background(), newNames("org_0", "").marker()).Val()[:40]
				l.lease = newScript(strings.Replace(markerSource, look, "'"+run+"'", 1) + holderSource + leaseSource)
			}
			grants := make([]ratelimit.Grant, 1)
			client.ConfigResetStat(context.Background())
			for b.Loop() {
				if err := l.Lease(context.Background(), takeOf(1, 0), grants); err != nil || grants[0].Taken != 1 {
					b.Fatalf("%+v, %v", grants[0], err)
				}
			}
			b.ReportMetric(serverCost(b, client), "redis-µs/op")
		})
	}
}
