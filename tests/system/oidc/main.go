// SPDX-License-Identifier: Apache-2.0

// Command oidc-lab is an OpenID provider for tests: zitadel's certified one with its example storage, people and their groups
// from a file that is read anew each time, so that tests change what it tells.
//
//	oidc-lab CONFIG.json     serves on a loopback port until SIGTERM; its first line on standard output is the issuer
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// person is a user and the groups that the provider tells of them.
type person struct {
	storage.User
	Groups []string
}

// config is the file: one client, and people by their subject.
type config struct {
	Client, Secret, Redirect string
	People                   map[string]*person
}

// people reads the file whenever somebody is looked up.
type people struct{ file string }

func (p people) read() config {
	var read config
	data, err := os.ReadFile(p.file)
	if err == nil {
		err = json.Unmarshal(data, &read)
	}
	if err != nil {
		log.Fatal(err)
	}
	return read
}

func (p people) GetUserByID(id string) *storage.User {
	if found := p.read().People[id]; found != nil {
		return &found.User
	}
	return nil
}

func (p people) GetUserByUsername(name string) *storage.User {
	for _, each := range p.read().People {
		if each.Username == name {
			return &each.User
		}
	}
	return nil
}

func (p people) ExampleClientID() string { return p.read().Client }

// grouped tells groups beside what the example tells.
type grouped struct {
	*storage.Storage
	people people
}

func (g grouped) SetUserinfoFromToken(ctx context.Context, info *oidc.UserInfo, token, subject, origin string) error {
	if err := g.Storage.SetUserinfoFromToken(ctx, info, token, subject, origin); err != nil {
		return err
	}
	if found := g.people.read().People[subject]; found != nil {
		info.AppendClaims("groups", found.Groups)
	}
	return nil
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: oidc-lab CONFIG.json")
	}
	known := people{os.Args[1]}
	start := known.read()
	storage.RegisterClients(storage.WebClient(start.Client, start.Secret, start.Redirect))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	issuer := fmt.Sprintf("http://%s/", listener.Addr())
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	server := &http.Server{Handler: exampleop.SetupServer(issuer, grouped{storage.NewStorage(known), known}, logger, false)}
	ending, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go func() {
		<-ending.Done()
		server.Close()
	}()
	fmt.Println(issuer)
	if err := server.Serve(listener); err != http.ErrServerClosed {
		log.Fatal(err)
	}
}
