// SPDX-License-Identifier: Apache-2.0

// Command vcsim-lab is a vCenter for tests: govmomi's simulator, extended by disks with real bytes on LUNs that an array
// serves at the same time, snapshots that freeze them, change tracking, leases that transfer disks, and faults on demand.
//
//	vcsim-lab CONFIG.json     serves until SIGTERM; STATE/ready.json tells the ports when it does
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator" // tags
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: vcsim-lab CONFIG.json")
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	raw, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	var c config
	if err := json.Unmarshal(raw, &c); err != nil {
		log.Fatalf("%s: %v", os.Args[1], err)
	}
	remove, err := serve(c)
	if err != nil {
		log.Fatal(err)
	}
	<-stop
	remove()
}

func serve(c config) (func(), error) {
	model := simulator.VPX()
	model.Machine, model.ClusterHost, model.Host, model.Pool = 0, c.Hosts, c.Standalone, 1
	about := &model.ServiceContent.About
	about.Version, about.ApiVersion, about.FullName = "8.0.3", "8.0.3.0", "VMware vCenter Server 8.0.3 (simulated)"
	if err := model.Create(); err != nil {
		return nil, err
	}
	l := &lab{
		config: c, service: model.Service, registry: model.Map(),
		datastores: map[string]*volume{}, disks: map[ref][]*disk{}, contents: map[string]*disk{}, kept: map[ref]bool{}, snapshots: map[ref]map[int32]*frozen{},
		disabled: map[ref][]disabledMethod{}, leases: map[string]*lease{}, uploads: map[string]upload{}, sessions: map[*simulator.Registry]bool{},
		count: counters{Calls: map[string]int{}}, readings: map[reading]int64{},
	}
	// The simulator's own listener stays inside: it serves what vAPI asks of vSphere.
	model.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(c.User, c.Password)}
	model.Service.RegisterEndpoints = true
	inner := model.Service.NewServer()
	properties := &collector{}
	properties.Self = l.registry.Get(vim25.ServiceInstance).(interface{ ServiceContent() types.ServiceContent }).ServiceContent().PropertyCollector
	l.registry.Put(properties)
	privileges(l.registry)
	if err := l.meter(); err != nil {
		return nil, err
	}
	keeper := &cleaner{lab: l}
	keeper.Self = ref{Type: "Folder", Value: "vcsim-lab"}
	l.registry.AddHandler(keeper)
	if err := l.build(context.Background(), inner.URL); err != nil {
		return nil, err
	}
	l.registry.Handler = l.intercept
	if err := l.listen(); err != nil {
		return nil, err
	}
	return func() { _ = l.gate.server.Close(); _ = l.host.server.Close(); inner.Close(); model.Remove() }, l.ready()
}

// listen opens the vCenter's port and the hosts' one, each with a certificate of its own.
func (l *lab) listen() error {
	l.gate = &gate{lab: l, handler: l.service.ServeMux, seen: map[string]bool{}, banned: map[string]bool{}}
	l.gate.address = fmt.Sprintf("127.0.0.1:%d", l.Port)
	l.host = &front{address: "127.0.0.1:0"}
	if err := l.gate.certify(filepath.Join(l.State, "ca.pem")); err != nil {
		return err
	}
	if err := l.host.certify(filepath.Join(l.State, "host-ca.pem")); err != nil {
		return err
	}
	if err := l.gate.open(l.gate); err != nil {
		return err
	}
	l.showHosts()
	return l.host.open(http.HandlerFunc(l.serveHost))
}

// ready opens the control endpoint and tells where everything is.
func (l *lab) ready() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { log.Print(http.Serve(listener, l.control())) }()
	l.registry.OptionManager().UpdateOptions(&types.UpdateOptions{ChangedValue: []types.BaseOptionValue{
		&types.OptionValue{Key: "VirtualCenter.FQDN", Value: "localhost"},
	}})
	raw, err := json.Marshal(map[string]any{
		"port": l.gate.port(), "control": listener.Addr().(*net.TCPAddr).Port, "thumbprint": l.gate.thumbprint(),
	})
	if err != nil {
		return err
	}
	file := filepath.Join(l.State, "ready.json")
	if err := os.WriteFile(file+".part", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".part", file)
}

// privileges fills in the list that the simulator leaves empty: all that its administrator has.
func privileges(registry *simulator.Registry) {
	for _, obj := range registry.AllReference("AuthorizationManager") {
		manager := obj.(*simulator.AuthorizationManager)
		for _, id := range object.AuthorizationRoleList(manager.RoleList).ByName("Admin").Privilege {
			group, name := id[:max(0, strings.LastIndexByte(id, '.'))], id[strings.LastIndexByte(id, '.')+1:]
			manager.PrivilegeList = append(manager.PrivilegeList, types.AuthorizationPrivilege{PrivId: id, Name: name, PrivGroupName: group})
		}
	}
}

// httpClient is one over the wire, logged in as the in-process client is: vAPI needs the same session for both.
func httpClient(ctx context.Context, server *url.URL, inner *vim25.Client) *vim25.Client {
	client, err := vim25.NewClient(ctx, soap.NewClient(server, true))
	if err != nil {
		return inner
	}
	return client
}
