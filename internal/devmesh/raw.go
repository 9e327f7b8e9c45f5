package devmesh

import (
	"io"
	"net"
	"sync"
)

// greetingLabel is the label of workloads whose application speaks first: what it
// says, in a line.
const greetingLabel = "greets"

// A rawServer answers on connections that carry no requests: it sends back what
// comes, behind a greeting if it has one, and ends when its client has ended.
type rawServer struct {
	net.Listener
	greeting string

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil when it is closed
}

func newRawServer(l net.Listener, greeting string) *rawServer {
	return &rawServer{Listener: l, greeting: greeting, conns: map[net.Conn]struct{}{}}
}

func (s *rawServer) serve() {
	for {
		nc, err := s.Accept()
		if err != nil {
			return
		}
		go s.echo(nc)
	}
}

func (s *rawServer) echo(nc net.Conn) {
	defer nc.Close()
	s.mu.Lock()
	if s.conns == nil {
		s.mu.Unlock()
		return
	}
	s.conns[nc] = struct{}{}
	s.mu.Unlock()
	if s.greeting != "" {
		io.WriteString(nc, s.greeting+"\r\n")
	}
	io.Copy(nc, nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, nc)
}

// Close ends every connection, too.
func (s *rawServer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for nc := range s.conns {
		nc.Close()
	}
	s.conns = nil
	return s.Listener.Close()
}
