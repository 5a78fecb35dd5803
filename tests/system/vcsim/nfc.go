// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

type pool struct {
	*simulator.ResourcePool
	lab *lab
}

func (s *snapshot) ExportSnapshot(ctx *simulator.Context, _ *types.ExportSnapshot) soap.HasFault {
	body := new(methods.ExportSnapshotBody)
	vm := ctx.Map.Get(s.Vm).(*simulator.VirtualMachine)
	if s.lab.busy(vm.Self) {
		body.Fault_ = simulator.Fault("", inProgress())
		return body
	}
	made := s.lab.newLease(ctx, vm.Self)
	s.lab.mu.Lock()
	held := s.lab.snapshots[s.Self]
	s.lab.mu.Unlock()
	s.lab.open(ctx, made, vm, s.Config.Hardware.Device, func(d *disk) *link {
		if f := held[d.key]; f != nil {
			return f.link
		}
		return nil
	})
	body.Res = &types.ExportSnapshotResponse{Returnval: made.Self}
	return body
}

func (m *machine) ExportVm(ctx *simulator.Context, _ *types.ExportVm) soap.HasFault {
	body := new(methods.ExportVmBody)
	m.lab.adopt()
	switch {
	case m.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff:
		body.Fault_ = simulator.Fault("", &types.InvalidPowerState{
			RequestedState: types.VirtualMachinePowerStatePoweredOff, ExistingState: m.Runtime.PowerState,
		})
	case m.lab.busy(m.Self):
		body.Fault_ = simulator.Fault("", inProgress())
	default:
		made := m.lab.newLease(ctx, m.Self)
		m.lab.open(ctx, made, m.VirtualMachine, m.Config.Hardware.Device, func(d *disk) *link { return d.top() })
		body.Res = &types.ExportVmResponse{Returnval: made.Self}
	}
	return body
}

// open makes a lease ready, or refuses as a host does whose connections are used up.
func (l *lab) open(ctx *simulator.Context, made *lease, vm *simulator.VirtualMachine, devices []types.BaseVirtualDevice, of func(*disk) *link) {
	if l.take("lease-refused", vm.Name) != nil {
		fault := &types.InsufficientResourcesFault{}
		made.fail(ctx, fault, "The host has no NFC connection left")
		return
	}
	made.ready(ctx, vm, devices, of)
}

// ImportVApp makes the machine, whose disks are empty until their streams come, and keeps it from being started.
func (p *pool) ImportVApp(ctx *simulator.Context, req *types.ImportVApp) soap.HasFault {
	body := new(methods.ImportVAppBody)
	spec, ok := req.Spec.(*types.VirtualMachineImportSpec)
	if !ok {
		body.Fault_ = simulator.Fault("", invalid("spec"))
		return body
	}
	where := p.lab.center.VmFolder
	if req.Folder != nil {
		where = *req.Folder
	}
	folder, ok := ctx.Map.Get(where).(*simulator.Folder)
	if !ok {
		body.Fault_ = simulator.Fault("", invalid("folder"))
		return body
	}
	made := p.lab.newLease(ctx, ref{})
	made.imports = true
	task := simulator.CreateTask(p.ResourcePool, "importVApp", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		create := &types.CreateVM_Task{This: where, Config: spec.ConfigSpec, Pool: p.Self, Host: req.Host}
		created := folder.CreateVMTask(ctx, create).(*methods.CreateVM_TaskBody)
		result, fault := wait(ctx, created.Res.Returnval)
		if fault != nil {
			made.fail(ctx, fault, fmt.Sprintf("%T", fault))
			return nil, fault
		}
		vm := ctx.Map.Get(result.(ref)).(*simulator.VirtualMachine)
		if err := p.lab.sync(vm); err != nil {
			made.fail(ctx, &types.SystemErrorFault{Reason: err.Error()}, err.Error())
			return nil, nil
		}
		p.lab.mu.Lock()
		made.vm = vm.Self
		p.lab.mu.Unlock()
		p.lab.open(ctx, made, vm, vm.Config.Hardware.Device, func(d *disk) *link { return d.top() })
		return nil, nil
	})
	task.Run(ctx)
	body.Res = &types.ImportVAppResponse{Returnval: made.Self}
	return body
}

// serveNFC is the host: GET sends an export's disk, POST or PUT takes an import's.
func (l *lab) serveNFC(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	l.mu.Lock()
	var held transfer
	e := l.leases[parts[min(1, len(parts)-1)]]
	ok := e != nil && !e.over && len(parts) == 3
	if ok {
		held, ok = e.disks[parts[2]]
	}
	l.mu.Unlock()
	switch {
	case !ok:
		http.NotFound(w, r)
	case l.take("host-busy", "") != nil:
		http.Error(w, "no connection left", http.StatusServiceUnavailable)
	case r.Method == http.MethodGet && !e.imports:
		l.send(w, e, held)
	case (r.Method == http.MethodPost || r.Method == http.MethodPut) && e.imports:
		l.receive(w, r, e, held)
	default:
		http.Error(w, "not for this lease", http.StatusMethodNotAllowed)
	}
}

func (l *lab) send(w http.ResponseWriter, e *lease, held transfer) {
	l.mu.Lock()
	size := held.disk.size
	areas, err := held.disk.allocated(held.disk.position(held.link.file))
	l.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	limit := int64(-1)
	if f := l.take("export-cut", ""); f != nil {
		limit = int64(f.number(100_000))
	}
	w.Header().Set("Content-Type", "application/x-vnd.vmware-streamVmdk")
	out := &limitedWriter{w: w, left: limit}
	err = writeStream(out, size, areas, func(p []byte, at int64) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if err := e.running(); err != nil {
			return err
		}
		l.count.Read += int64(len(p))
		return held.disk.read(p, at, held.disk.position(held.link.file))
	})
	if err != nil {
		panic(http.ErrAbortHandler) // the connection breaks, as a host's does
	}
}

// limitedWriter breaks after so many bytes; never, when that is negative.
type limitedWriter struct {
	w    io.Writer
	left int64
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.left >= 0 {
		if w.left -= int64(len(p)); w.left < 0 {
			return 0, io.ErrClosedPipe
		}
	}
	return w.w.Write(p)
}

func (l *lab) receive(w http.ResponseWriter, r *http.Request, e *lease, held transfer) {
	in := io.Reader(r.Body)
	aborted := l.take("import-aborted", "")
	if aborted != nil {
		in = io.LimitReader(in, int64(aborted.number(65536)))
	}
	err := readStream(in, held.disk.size, func(p []byte, at int64) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if err := e.running(); err != nil {
			return err
		}
		l.count.Written += int64(len(p))
		return held.disk.base.writeAt(p, at)
	})
	if aborted != nil {
		e.lose("the import was aborted")
		panic(http.ErrAbortHandler)
	}
	l.mu.Lock()
	lost := e.over
	l.mu.Unlock()
	if lost {
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	w.WriteHeader(http.StatusOK)
}

func (l *lab) handedOut(n int64) {
	l.mu.Lock()
	l.count.Read += n
	l.mu.Unlock()
}
