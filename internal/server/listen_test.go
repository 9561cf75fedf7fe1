package server

import (
	"net/http"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// A panic is not to be overlooked; a client that speaks TLS to a plain port is.
func TestServerLog(t *testing.T) {
	core, logged := observer.New(zapcore.InfoLevel)
	l, err := listen(t.Context(), "proxy", "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("mistake") }), nil, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- l.serve() }()
	if resp, err := http.Get("http://" + l.Addr().String()); err == nil {
		resp.Body.Close()
		t.Errorf("answer %d", resp.StatusCode)
	}
	if resp, err := http.Get("https://" + l.Addr().String()); err == nil {
		resp.Body.Close()
		t.Errorf("answer %d", resp.StatusCode)
	}
	if err := l.drain(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	all := logged.All()
	if len(all) != 1 || all[0].Level != zapcore.ErrorLevel || all[0].ContextMap()["listener"] != "proxy" {
		t.Errorf("%+v", all)
	}
}
