// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"
	"path"
	"reflect"
	"strings"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

type pool struct {
	*simulator.ResourcePool
	lab *lab
}

// lease holds a machine for an export or an import; its disks have addresses at the "host", which has a port of its own.
type lease struct {
	mo.HttpNfcLease
	lab     *lab
	vm      ref
	disks   map[string]transfer // by the last part of the address
	imports bool
	over    bool
	beat    time.Time
	limit   time.Duration
}

// transfer is a disk of a lease. link: of an export, what stands still.
type transfer struct {
	disk *disk
	link *link
}

const leaseTimeout = 300 // seconds after the last sign of life

// inProgress names a task, as it must; which one it is, nobody can know who does not hold the lease.
func inProgress() types.BaseMethodFault {
	return &types.TaskInProgress{Task: ref{Type: "Task", Value: "task-lease"}}
}

func (l *lab) newLease(ctx *simulator.Context, vm ref) *lease {
	l.mu.Lock()
	l.files++
	limit := l.faults.value("lease-timeout", leaseTimeout)
	made := &lease{lab: l, vm: vm, disks: map[string]transfer{}, beat: time.Now(), limit: time.Duration(limit * float64(time.Second))}
	made.Self = ref{Type: "HttpNfcLease", Value: fmt.Sprintf("session[%s]nfc-%d", ctx.Session.Key, l.files)}
	made.State, made.Mode = types.HttpNfcLeaseStateInitializing, string(types.HttpNfcLeaseModePushOrGet)
	l.leases[fmt.Sprintf("nfc-%d", l.files)] = made
	l.mu.Unlock()
	ctx.Map.Put(made)
	go made.watch()
	return made
}

// watch ends a lease that nobody keeps.
func (e *lease) watch() {
	for {
		time.Sleep(min(e.limit/4, time.Second))
		e.lab.mu.Lock()
		over, late := e.over, time.Since(e.beat) > e.limit
		e.lab.mu.Unlock()
		if over {
			return
		}
		if late {
			e.lose("The lease timed out")
			return
		}
	}
}

// lose ends a running lease from the host's side: transfers are cut, an import's machine goes.
func (e *lease) lose(why string) {
	ctx := *e.lab.service.Context
	e.fail(&ctx, &types.SystemErrorFault{Reason: why}, why)
	e.undo(&ctx)
}

// loseLeases ends those of a machine, or all.
func (l *lab) loseLeases(vm ref, why string) {
	var running []*lease
	l.mu.Lock()
	for _, e := range l.leases {
		if !e.over && (vm.Value == "" || e.vm == vm) {
			running = append(running, e)
		}
	}
	l.mu.Unlock()
	for _, e := range running {
		e.lose(why)
	}
}

// running is asked at each piece of a transfer. The caller holds mu.
func (e *lease) running() error {
	if e.over {
		return fmt.Errorf("the lease is over")
	}
	return nil
}

func (e *lease) id() string { return e.Self.Value[strings.LastIndexByte(e.Self.Value, ']')+1:] }

// fail is a lease that never becomes ready, or one that ends in the middle.
func (e *lease) fail(ctx *simulator.Context, fault types.BaseMethodFault, message string) {
	e.lab.mu.Lock()
	e.over = true
	e.lab.mu.Unlock()
	ctx.Map.AtomicUpdate(ctx, e, []types.PropertyChange{
		{Name: "state", Val: types.HttpNfcLeaseStateError},
		{Name: "error", Val: &types.LocalizedMethodFault{Fault: fault, LocalizedMessage: message}},
	})
}

// ready gives the disks their addresses. of tells the link that each one's export reads.
func (e *lease) ready(ctx *simulator.Context, vm *simulator.VirtualMachine, devices object.VirtualDeviceList, of func(*disk) *link) {
	var urls []types.HttpNfcLeaseDeviceUrl
	e.lab.mu.Lock()
	for n, device := range virtualDisks(devices) {
		d := e.lab.disk(vm.Self, device.Key)
		if d == nil {
			continue
		}
		held := of(d)
		if held == nil {
			continue // the snapshot does not hold it
		}
		name := fmt.Sprintf("disk-%d.vmdk", n)
		e.disks[name] = transfer{d, held}
		place := controllerName(devices, device)
		urls = append(urls, types.HttpNfcLeaseDeviceUrl{
			Key: fmt.Sprintf("/%s/%s", vm.Self.Value, place), ImportKey: fmt.Sprintf("/%s/%s", vm.Name, place),
			Url:           fmt.Sprintf("https://127.0.0.1:%d/nfc/%s/%s", e.lab.host.port(), e.id(), name),
			SslThumbprint: e.lab.host.sha1(), Disk: types.NewBool(true), TargetId: name,
			DatastoreKey: path.Join("https://127.0.0.1", e.id()),
		})
	}
	e.lab.mu.Unlock()
	info := &types.HttpNfcLeaseInfo{Lease: e.Self, Entity: vm.Self, DeviceUrl: urls, LeaseTimeout: int32(max(1, e.limit/time.Second))}
	ctx.Map.AtomicUpdate(ctx, e, []types.PropertyChange{
		{Name: "info", Val: info},
		{Name: "state", Val: types.HttpNfcLeaseStateReady},
	})
}

// controllerName is "ParaVirtualSCSIController0:1".
func controllerName(devices object.VirtualDeviceList, device *types.VirtualDisk) string {
	controller := devices.FindByKey(device.ControllerKey)
	if controller == nil {
		return diskName(devices, device)
	}
	bus := controller.(types.BaseVirtualController).GetVirtualController().BusNumber
	return fmt.Sprintf("%s%d:%d", reflect.TypeOf(controller).Elem().Name(), bus, *device.UnitNumber)
}

func (e *lease) HttpNfcLeaseProgress(ctx *simulator.Context, req *types.HttpNfcLeaseProgress) soap.HasFault {
	body := new(methods.HttpNfcLeaseProgressBody)
	e.lab.mu.Lock()
	over := e.over
	e.beat = time.Now()
	e.lab.mu.Unlock()
	if over {
		body.Fault_ = simulator.Fault("The lease is over", &types.InvalidState{})
		return body
	}
	e.TransferProgress = req.Percent
	body.Res = new(types.HttpNfcLeaseProgressResponse)
	return body
}

func (e *lease) HttpNfcLeaseComplete(ctx *simulator.Context, _ *types.HttpNfcLeaseComplete) soap.HasFault {
	body := new(methods.HttpNfcLeaseCompleteBody)
	if e.State != types.HttpNfcLeaseStateReady {
		body.Fault_ = simulator.Fault("The lease is not ready", &types.InvalidState{})
		return body
	}
	e.end(ctx)
	body.Res = new(types.HttpNfcLeaseCompleteResponse)
	return body
}

// HttpNfcLeaseAbort of an import takes its machine away again.
func (e *lease) HttpNfcLeaseAbort(ctx *simulator.Context, _ *types.HttpNfcLeaseAbort) soap.HasFault {
	e.end(ctx)
	e.undo(ctx)
	return &methods.HttpNfcLeaseAbortBody{Res: new(types.HttpNfcLeaseAbortResponse)}
}

func (e *lease) end(ctx *simulator.Context) {
	e.lab.mu.Lock()
	e.over = true
	e.lab.mu.Unlock()
	ctx.Update(e, []types.PropertyChange{{Name: "state", Val: types.HttpNfcLeaseStateDone}})
}

func (e *lease) undo(ctx *simulator.Context) {
	if vm, ok := ctx.Map.Get(e.vm).(*simulator.VirtualMachine); ok && e.imports {
		_ = vm.DestroyTask(ctx, &types.Destroy_Task{This: e.vm})
	}
}

// busy tells whether a lease holds the machine already. The caller does not hold mu.
func (l *lab) busy(vm ref) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.leases {
		if e.vm == vm && !e.over {
			return true
		}
	}
	return false
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
