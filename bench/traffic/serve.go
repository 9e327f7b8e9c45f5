package traffic

import (
	"io"
	"net"
)

// Serve answers plain HTTP/1.1 on l until l is closed.
func Serve(l net.Listener) error {
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		go answerConn(nc)
	}
}

// answerConn answers one connection's requests until it ends or talks
// nonsense: then it closes, and the client counts that.
func answerConn(nc net.Conn) {
	defer nc.Close()
	var q question
	buf := make([]byte, 16<<10)
	for {
		n, err := nc.Read(buf)
		if err != nil {
			return
		}
		for p := buf[:n]; len(p) > 0; {
			n, r, err := q.feed(p)
			if err != nil {
				return
			}
			p = p[n:]
			if r != nil && r.writeTo(nc) != nil {
				return
			}
		}
	}
}

// writeTo writes the whole response.
func (r *response) writeTo(w io.Writer) error {
	if _, err := w.Write(r.bytes); err != nil || r.whole {
		return err
	}
	for off := int64(0); off < r.size; {
		n, err := w.Write(body(off, r.size, 64<<10))
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}
