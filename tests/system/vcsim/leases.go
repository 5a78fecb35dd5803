// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
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
