// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/soap"
)

const restSession = "vmware-api-session-id" // header of the REST interface

// front is a TLS server with a certificate that can be changed.
type front struct {
	address string
	server  *http.Server

	mu   sync.Mutex
	cert tls.Certificate
}

// gate is the vCenter's front: sessions that expire, connections that are cut.
type gate struct {
	front
	lab     *lab
	handler http.Handler

	seen   map[string]bool // tokens of sessions that clients used
	banned map[string]bool // those that ended
}

// certify makes a new certificate of an authority of its own, whose certificate goes to the file.
func (g *front) certify(file string) error {
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "simulated vCenter CA"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano() + 1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	rawCA, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	raw, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.cert = tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
	g.mu.Unlock()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rawCA})
	return os.WriteFile(file, text, 0o600)
}

func (g *front) thumbprint() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	sum := sha256.Sum256(g.cert.Certificate[0])
	return hex.EncodeToString(sum[:])
}

// sha1 is how vCenter tells a host's certificate in a lease.
func (g *front) sha1() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	sum := sha1.Sum(g.cert.Certificate[0])
	words := make([]string, len(sum))
	for i, b := range sum {
		words[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(words, ":")
}

// open listens, at first on the port that was asked for, later on the same one again.
func (g *front) open(handler http.Handler) error {
	listener, err := net.Listen("tcp", g.address)
	if err != nil {
		return err
	}
	g.address = listener.Addr().String()
	config := &tls.Config{
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			cert := g.cert
			return &cert, nil
		},
	}
	g.server = &http.Server{Handler: handler}
	server := g.server
	go func() { _ = server.Serve(tls.NewListener(listener, config)) }()
	return nil
}

func (g *front) port() int {
	address, _ := net.ResolveTCPAddr("tcp", g.address)
	return address.Port
}

// restart is a vCenter that goes down and comes up again: connections and sessions end, tasks on hosts go on.
func (g *gate) restart(down time.Duration) error {
	_ = g.server.Close()
	g.expire()
	time.Sleep(down)
	return g.open(g)
}

// expire ends all sessions that there are.
func (g *gate) expire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for token := range g.seen {
		g.banned[token] = true
	}
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if fault := g.lab.take("connection-cut", ""); fault != nil {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
		return
	}
	g.admit(r)
	switch {
	case strings.HasPrefix(r.URL.Path, "/folder/") && strings.HasSuffix(r.URL.Path, ".vmdk"):
		counted := &countingWriter{ResponseWriter: w}
		g.handler.ServeHTTP(counted, r)
		g.lab.handedOut(counted.bytes)
	default:
		g.handler.ServeHTTP(w, r)
	}
}

// admit notes the request's session, or takes it off when it has ended.
func (g *gate) admit(r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if cookie, err := r.Cookie(soap.SessionCookieName); err == nil {
		g.seen[cookie.Value] = true
		if g.banned[cookie.Value] {
			r.Header.Del("Cookie")
		}
	}
	if token := r.Header.Get(restSession); token != "" {
		g.seen[token] = true
		if g.banned[token] {
			r.Header.Set(restSession, "ended")
		}
	}
}

type countingWriter struct {
	http.ResponseWriter
	bytes int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.bytes += int64(n)
	return n, err
}
