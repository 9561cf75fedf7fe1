// Command bench measures what keygate adds to a request: the CPU time per
// request of a bare httputil.ReverseProxy and of keygate on the embedded store
// and on Redis, at the same moment and under equal load, as a ratio; and how much
// Redis has to do for a request. "make bench" runs it.
//
// A ratio of two processes that run side by side holds on a machine that other
// work shares; a throughput or a latency does not. The reference against itself
// shows how far it can be trusted. It needs Linux, since CPU time comes from
// /proc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"syscall"
	"time"
)

type options struct {
	repetitions int
	closed      time.Duration
	open        time.Duration
	rate        int
	connections int
	binary      string
	against     string
	redis       bool
	peers       bool
	only        *regexp.Regexp
	keys        int
	limiters    bool
}

func main() {
	// Children die with the thread that started them: see dieWithParent.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) > 0 {
		// The parts that must be processes of their own, to have their own CPU time.
		switch args[0] {
		case roleUpstream:
			return serveUpstream(ctx, stdout)
		case roleReference:
			return serveReference(ctx, stdout, args[1:])
		case roleLoad:
			return generateLoad(ctx, stdin, stdout)
		}
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.limiters {
		return compareLimiters(stdout)
	}
	if o.keys > 0 {
		return scale(ctx, o, stdout)
	}
	return bench(ctx, o, stdout)
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.IntVar(&o.repetitions, "reps", 5, "paired repetitions of each measurement, at least 5 for figures to quote")
	f.DurationVar(&o.closed, "closed", time.Second, "length of one closed-loop measurement")
	f.DurationVar(&o.open, "open", 1500*time.Millisecond, "length of one open-loop measurement")
	f.IntVar(&o.rate, "rate", 2000, "requests per second and subject in the open loop")
	f.IntVar(&o.connections, "connections", 32, "keep-alive connections per subject")
	f.StringVar(&o.binary, "binary", "", "keygate binary to measure, instead of building this source")
	f.StringVar(&o.against, "against", "", "another keygate binary to measure this one against, such as one of an earlier commit")
	f.BoolVar(&o.redis, "redis", true, "also measure keygate on Redis, which must be installed")
	f.BoolVar(&o.peers, "peers", false, "also measure against nginx and HAProxy, which must be installed")
	f.IntVar(&o.keys, "keys", 0, "instead of all that: store so many keys and measure how keygate bears them; 1000000 takes minutes")
	f.BoolVar(&o.limiters, "limiters", false, "instead of all that: compare what limiters of several kinds admit in the worst case, in simulated time")
	only := f.String("run", "", "regular expression; measure only the rows whose name matches it")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.repetitions < 1 || o.keys < 0 || o.keys > 0 && o.keys < scaleUsed || o.rate < 1 || o.connections < 1 || o.closed <= 0 || o.open <= 0 || f.NArg() > 0 {
		return o, errors.New("numbers and lengths must be positive, -keys at least 20000, and there are no arguments; see -h")
	}
	var err error
	o.only, err = regexp.Compile(*only)
	return o, err
}

// bench starts everything, measures and prints. All that it started has ended
// when it returns.
func bench(ctx context.Context, o options, stdout io.Writer) (err error) {
	b, err := newBed(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	b.all = slices.DeleteFunc(b.all, func(p pair) bool { return !o.only.MatchString(p.name) })
	if len(b.all) == 0 {
		return errors.New("-run matches no row")
	}
	ctx, cancel := context.WithTimeout(ctx, o.bound(len(b.all)))
	defer cancel()
	if err := measure(ctx, o, b.all); err != nil {
		return err
	}
	return report(stdout, b, o)
}

// bound is twice the time that the measurements should take.
func (o options) bound(pairs int) time.Duration {
	each := o.closed + o.open + 2*warmUp + 2*time.Second
	return 2 * time.Duration(pairs*o.repetitions) * each
}
