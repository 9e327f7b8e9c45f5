package devmesh

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
)

// vaultName is the name by which the document's TLSRoute knows the vault.
const vaultName = "vault.example"

func (c *checker) tcp() error {
	nc, err := c.connect("cache")
	if err != nil {
		return err
	}
	defer nc.Close()
	sent := make([]byte, 1<<20)
	rand.Read(sent)
	go func() {
		nc.Write(sent)
		nc.CloseWrite()
	}()
	got, err := io.ReadAll(nc)
	if err == nil && !bytes.Equal(got, sent) {
		err = fmt.Errorf("%d bytes came back, and not those that were sent", len(got))
	}
	return err
}

func (c *checker) serverFirst() error {
	nc, err := c.connect("mail")
	if err != nil {
		return err
	}
	defer nc.Close()
	r := bufio.NewReader(nc)
	if line, err := r.ReadString('\n'); line != "220 mail ESMTP\r\n" {
		return fmt.Errorf("greeted with %q (%v)", line, err)
	}
	fmt.Fprint(nc, "EHLO demo\r\n")
	if line, err := r.ReadString('\n'); line != "EHLO demo\r\n" {
		return fmt.Errorf("answered with %q (%v)", line, err)
	}
	return nil
}

func (c *checker) undeclared() error {
	_, got, err := c.do(get("stock", "/hello", 200))
	if err != nil {
		return err
	}
	return want(got, "request: GET /hello HTTP/1.1", "workload: shop/reviews-v1")
}

func (c *checker) tls() error {
	for _, name := range []string{vaultName, "elsewhere.example"} {
		nc, err := c.connect("vault")
		if err != nil {
			return err
		}
		defer nc.Close()
		inside := tls.Client(nc, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		err = inside.Handshake()
		switch {
		case name != vaultName && err == nil:
			return fmt.Errorf("%s is no route's, and was let through", name)
		case name != vaultName:
			continue
		case err != nil:
			return err
		}
		fmt.Fprintf(inside, "GET /hello HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", name)
		r, err := http.ReadResponse(bufio.NewReader(inside), nil)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		if err := want(got, "workload: shop/vault-a", "host: "+name); err != nil {
			return err
		}
	}
	return nil
}
