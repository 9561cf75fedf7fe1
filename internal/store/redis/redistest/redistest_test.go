package redistest

import (
	"testing"
)

func TestServer(t *testing.T) {
	for _, o := range []Options{{AOF: "always"}, {AOF: "everysec", Password: "secret"}, {AOF: "always", TLS: true}} {
		t.Run(o.AOF, func(t *testing.T) {
			t.Parallel()
			s := Start(t, o)
			s.Do("SET", "a", "b")
			s.Kill()
			s.Kill() // a second time changes nothing
			s.Start()
			if got := s.Do("GET", "a"); got != "b" {
				t.Errorf("after the restart: %v", got)
			}
			s.Flush()
			if n := s.Do("DBSIZE"); n != int64(0) {
				t.Errorf("%v keys after Flush", n)
			}
		})
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c := StartCluster(t)
	c.MasterOf("a").Do("SET", "a", "b")
	c.Flush()
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	g := StartSentinel(t, 1, Options{})
	g.Master.Do("SET", "a", "b")
	if n := g.Master.Do("WAIT", 1, 5000); n != int64(0) && n != int64(1) {
		t.Errorf("WAIT: %v", n)
	}
}
