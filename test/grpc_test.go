package test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"keygate/internal/store/redis/redistest"
)

// bearer sends a key with each call, also over plain HTTP/2.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

const grpcPolicy = `
version: 1
upstreams: { grpc: { targets: ["h2c://UPSTREAM"] } }
permissions: { "calls:make": { group: Write } }
plans: { once: { limits: [{ name: hour, requests: 1, per: 1h }] } }
routes:
  - { match: "POST /grpc.testing.TestService/{method}", permission: "calls:make" }
  - { match: "POST /grpc.testing.UnimplementedService/{method}", permission: any }
`

// grpcServer is gRPC's own interoperability server, at the address that it returns.
func grpcServer(t *testing.T) string {
	t.Helper()
	return serveGRPC(t, "127.0.0.1:0")
}

func serveGRPC(t *testing.T, address string) string {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	served := make(chan error)
	go func() { served <- server.Serve(ln) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// grpcGateway is one in front of that server.
func grpcGateway(t *testing.T) *gateway {
	t.Helper()
	files := newCertificate(t, 1)
	return start(t, settings{
		"KEYGATE_POLICY": strings.ReplaceAll(grpcPolicy, "UPSTREAM", grpcServer(t)), "KEYGATE_DEFAULT_PLAN": "enterprise",
		"KEYGATE_TLS_ADDR": "127.0.0.1:0", "KEYGATE_TLS_CERT": files.cert, "KEYGATE_TLS_KEY": files.key,
	})
}

func (g *gateway) dialGRPC(secure bool, key string, options ...grpc.DialOption) *grpc.ClientConn {
	g.t.Helper()
	target, transport := strings.TrimPrefix(g.proxy, "http://"), insecure.NewCredentials()
	if secure {
		target, transport = strings.TrimPrefix(g.secureURL(), "https://"), credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
	}
	options = append(options, grpc.WithTransportCredentials(transport))
	if key != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(key)))
	}
	conn, err := grpc.NewClient("passthrough:///"+target, options...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// gRPC's own interoperability tests pass through the gate, over TLS and without, 20
// times over in the long form. A failure ends the process with what was wrong.
func TestGRPCInterop(t *testing.T) {
	t.Parallel()
	g := grpcGateway(t)
	k := g.newKey("interop", "--permissions", "calls:make")
	rounds := 1
	if full() {
		rounds = 20
	}
	for _, secure := range []bool{false, true} {
		conn := g.dialGRPC(secure, k.Secret)
		client := testgrpc.NewTestServiceClient(conn)
		for range rounds {
			ctx := t.Context()
			interop.DoEmptyUnaryCall(ctx, client)
			interop.DoLargeUnaryCall(ctx, client)
			interop.DoClientStreaming(ctx, client)
			interop.DoServerStreaming(ctx, client)
			interop.DoPingPong(ctx, client)
			interop.DoEmptyStream(ctx, client)
			interop.DoTimeoutOnSleepingServer(ctx, client)
			interop.DoCancelAfterBegin(ctx, client)
			interop.DoCancelAfterFirstResponse(ctx, client)
			interop.DoCustomMetadata(ctx, client)
			interop.DoStatusCodeAndMessage(ctx, client)
			interop.DoSpecialStatusMessage(ctx, client)
			interop.DoUnimplementedMethod(ctx, conn)
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
		}
	}
	g.stop()
}

// What the gate refuses is a gRPC status, with words.
func TestGRPCRefusals(t *testing.T) {
	t.Parallel()
	g := grpcGateway(t)
	once := g.newKey("once", "--permissions", "calls:make", "--plan", "once")
	weak := g.newKey("weak", "--permissions", "read:all")
	call := func(key string) error {
		_, err := testgrpc.NewTestServiceClient(g.dialGRPC(false, key)).EmptyCall(t.Context(), &testgrpc.Empty{})
		return err
	}
	if err := call(once.Secret); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key  string
		code codes.Code
		says string
	}{
		{"", codes.Unauthenticated, "API key is missing"},
		{newSecret(t), codes.Unauthenticated, "API key is invalid"},
		{weak.Secret, codes.PermissionDenied, "Insufficient permissions"},
		{once.Secret, codes.ResourceExhausted, "Rate limit exceeded"},
	} {
		err := call(c.key)
		if status.Code(err) != c.code || !strings.Contains(status.Convert(err).Message(), c.says) {
			t.Errorf("%v, want %v %q", err, c.code, c.says)
		}
	}
	_, err := testgrpc.NewReconnectServiceClient(g.dialGRPC(false, weak.Secret)).Start(t.Context(), &testgrpc.ReconnectParams{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("no route: %v", err)
	}
	g.stop()
}

// A call that is open in both directions ends with status 16 when its key is
// revoked, also one whose server has said nothing yet.
func TestGRPCStreamsAreCut(t *testing.T) {
	t.Parallel()
	g := grpcGateway(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, secure := range []bool{false, true} {
		k := g.newKey(fmt.Sprint("streamer-", secure), "--permissions", "calls:make")
		client := testgrpc.NewTestServiceClient(g.dialGRPC(secure, k.Secret))
		both, err := client.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := both.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 10}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := both.Recv(); err != nil {
			t.Fatal(err)
		}
		up, err := client.StreamingInputCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := up.Send(&testgrpc.StreamingInputCallRequest{Payload: &testgrpc.Payload{Body: []byte("abc")}}); err != nil {
			t.Fatal(err)
		}
		g.must(nil, "keys", "revoke", k.ID, "--yes")
		if _, err := both.Recv(); status.Code(err) != codes.Unauthenticated {
			t.Errorf("both ways, TLS %v: %v", secure, err)
		}
		var answer testgrpc.StreamingInputCallResponse
		if err := up.RecvMsg(&answer); status.Code(err) != codes.Unauthenticated {
			t.Errorf("client streaming, TLS %v: %v", secure, err)
		}
	}
	g.stop()
}

// Where the gate cannot say yes or no, or the server behind it is away, a call ends
// with status 14, which clients may repeat: one with gRPC's own retry policy is
// answered as soon as the server is back, and its user notices nothing.
func TestGRPCUnavailable(t *testing.T) {
	t.Parallel()
	address := fmt.Sprint("127.0.0.1:", redistest.FreePort(t))
	g := start(t, settings{"KEYGATE_POLICY": strings.ReplaceAll(grpcPolicy, "UPSTREAM", address), "KEYGATE_DEFAULT_PLAN": "enterprise"})
	k := g.newKey("patient", "--permissions", "calls:make")
	patient := testgrpc.NewTestServiceClient(g.dialGRPC(false, k.Secret, grpc.WithDefaultServiceConfig(`{"methodConfig": [{
		"name": [{"service": "grpc.testing.TestService"}],
		"retryPolicy": {"maxAttempts": 5, "initialBackoff": "1s", "maxBackoff": "5s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}
	}]}`)))
	hasty := testgrpc.NewTestServiceClient(g.dialGRPC(false, k.Secret))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	refused := func(when string, call func() error) {
		t.Helper()
		if err := call(); status.Code(err) != codes.Unavailable || !strings.Contains(status.Convert(err).Message(), "Upstream unavailable") {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("a call", func() error { _, err := hasty.EmptyCall(ctx, &testgrpc.Empty{}); return err })
	refused("a stream from the server", func() error {
		stream, err := hasty.StreamingOutputCall(ctx, &testgrpc.StreamingOutputCallRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	})
	refused("a stream from the client", func() error {
		stream, err := hasty.StreamingInputCall(ctx)
		if err == nil {
			_, err = stream.CloseAndRecv()
		}
		return err
	})
	refused("a stream in both directions", func() error {
		stream, err := hasty.FullDuplexCall(ctx)
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	})

	const tries = `keygate_requests_total{code="5xx",decision="allowed",plan="enterprise",route="POST /grpc.testing.TestService/{method}"}`
	before := g.metric(tries)
	answered := make(chan error, 1)
	go func() {
		_, err := patient.EmptyCall(ctx, &testgrpc.Empty{})
		answered <- err
	}()
	eventually(t, "the patient client has tried", func() bool { return g.metric(tries) > before })
	serveGRPC(t, address)
	if err := <-answered; err != nil {
		t.Errorf("with retries: %v", err)
	}
	g.stop()
}

// Redis has gone, and with it the limits of a key that is known and the keys that
// are not: the same status says that nobody could decide.
func TestGRPCWithoutRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	g := start(t, settings{
		"REDIS_URL": server.URL(), "KEYGATE_POLICY": strings.ReplaceAll(grpcPolicy, "UPSTREAM", grpcServer(t)), "KEYGATE_DEFAULT_PLAN": "enterprise",
	})
	known := testgrpc.NewTestServiceClient(g.dialGRPC(false, g.newKey("known", "--permissions", "calls:make", "--plan", "starter").Secret))
	unknown := testgrpc.NewTestServiceClient(g.dialGRPC(false, g.newKey("unknown", "--permissions", "calls:make").Secret))
	if _, err := known.EmptyCall(t.Context(), &testgrpc.Empty{}); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	for name, client := range map[string]testgrpc.TestServiceClient{"known": known, "unknown": unknown} {
		eventually(t, "the call of the key is refused", func() bool { // a lease may have admitted some
			_, err := client.EmptyCall(t.Context(), &testgrpc.Empty{})
			if err != nil && (status.Code(err) != codes.Unavailable || !strings.Contains(status.Convert(err).Message(), "Temporarily unavailable")) {
				t.Errorf("%s: %v", name, err)
			}
			return err != nil
		})
	}
	g.stop()
}
