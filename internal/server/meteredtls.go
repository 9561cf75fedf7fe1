package server

//lint:file-ignore SA1019 net/http cannot do it, see meterFrames

import (
	"context"
	"crypto/tls"
	"net/http"
	"time"

	"golang.org/x/net/http2"
)

// meterFrames has what HTTP/2 over TLS carries pass through a meter. net/http serves a
// *tls.Conn and nothing else; golang.org/x/net/http2 has the same server for any
// connection. It is deprecated for those who do not need that.
func meterFrames(s *http.Server) error {
	h2 := new(http2.Server)
	if err := http2.ConfigureServer(s, h2); err != nil {
		return err
	}
	s.TLSNextProto[http2.NextProtoTLS] = func(s *http.Server, conn *tls.Conn, h http.Handler) {
		metered := &meteredTLS{Conn: conn}
		metered.frames.starts(time.Now(), len(http2.ClientPreface))
		ctx := context.Background()
		if s.ConnContext != nil {
			ctx = s.ConnContext(ctx, conn)
		}
		h2.ServeConn(metered, &http2.ServeConnOpts{Context: ctx, BaseConfig: s, Handler: h})
	}
	return nil
}

// meteredTLS is a connection of HTTP/2 over TLS.
type meteredTLS struct {
	*tls.Conn
	frames frameMeter
}

func (c *meteredTLS) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if bounded := boundedOf(c.Conn); !c.frames.came(p[:n]) && bounded != nil {
		return 0, bounded.flooded(errFrameFlood)
	}
	return n, err
}

func (c *meteredTLS) Write(p []byte) (int, error) {
	c.frames.goes(p)
	return c.Conn.Write(p)
}
