// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// machine is a virtual machine whose snapshots freeze disks and whose changes are tracked.
type machine struct {
	*simulator.VirtualMachine
	lab *lab
}

type snapshot struct {
	*simulator.VirtualMachineSnapshot
	lab *lab
}

func (m *machine) CreateSnapshotTask(ctx *simulator.Context, req *types.CreateSnapshot_Task) soap.HasFault {
	ex := &types.CreateSnapshotEx_Task{This: req.This, Name: req.Name, Description: req.Description, Memory: req.Memory}
	if req.Quiesce {
		ex.QuiesceSpec = &types.VirtualMachineGuestQuiesceSpec{}
	}
	return &methods.CreateSnapshot_TaskBody{
		Res: &types.CreateSnapshot_TaskResponse{Returnval: m.createSnapshot(ctx, ex)},
	}
}

func (m *machine) CreateSnapshotExTask(ctx *simulator.Context, req *types.CreateSnapshotEx_Task) soap.HasFault {
	return &methods.CreateSnapshotEx_TaskBody{
		Res: &types.CreateSnapshotEx_TaskResponse{Returnval: m.createSnapshot(ctx, req)},
	}
}

func (m *machine) createSnapshot(ctx *simulator.Context, req *types.CreateSnapshotEx_Task) ref {
	task := simulator.CreateTask(m.VirtualMachine, "createSnapshot", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if fault := m.refusal(req); fault != nil {
			return nil, fault
		}
		m.lab.adopt()
		body := m.VirtualMachine.CreateSnapshotExTask(ctx, req).(*methods.CreateSnapshotEx_TaskBody)
		made, fault := wait(ctx, body.Res.Returnval)
		if fault != nil {
			return nil, fault
		}
		if err := m.lab.freeze(ctx, m.VirtualMachine, made.(ref)); err != nil {
			return nil, &types.SystemErrorFault{Reason: err.Error()}
		}
		return made, nil
	})
	return task.Run(ctx)
}

// wait for a task that was started on the same context, so that it shares the caller's locks.
func wait(ctx *simulator.Context, task ref) (types.AnyType, types.BaseMethodFault) {
	inner := ctx.Map.Get(task).(*simulator.Task)
	inner.Wait()
	if inner.Info.Error != nil {
		return nil, inner.Info.Error.Fault
	}
	return inner.Info.Result, nil
}

// refusal is how the next snapshot shall fail, if a test said so.
func (m *machine) refusal(req *types.CreateSnapshotEx_Task) types.BaseMethodFault {
	if slow := m.lab.take("snapshot-slow", m.Name); slow != nil {
		time.Sleep(time.Duration(slow.number(1) * float64(time.Second)))
	}
	if m.lab.take("snapshot-refused", m.Name) != nil {
		return &types.SnapshotFault{VimFault: types.VimFault{MethodFault: types.MethodFault{
			FaultMessage: []types.LocalizableMessage{{Key: "msg.snapshot.error", Message: "An error occurred while taking a snapshot."}},
		}}}
	}
	if req.QuiesceSpec == nil || m.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		return nil
	}
	tools := m.Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
	if !tools || m.lab.take("quiesce-timeout", m.Name) != nil {
		if _, windows := req.QuiesceSpec.(*types.VirtualMachineWindowsQuiesceSpec); windows {
			return &types.ApplicationQuiesceFault{}
		}
		return &types.FilesystemQuiesceFault{}
	}
	return nil
}

// freeze puts a delta on every disk that the snapshot holds and tells the change ids of the moment.
func (l *lab) freeze(ctx *simulator.Context, vm *simulator.VirtualMachine, made ref) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := map[int32]*frozen{}
	for _, device := range virtualDisks(vm.Config.Hardware.Device) {
		d := l.disk(vm.Self, device.Key)
		if d == nil || !holds(device) {
			continue
		}
		l.track(vm, d)
		f := &frozen{link: d.top()}
		if d.tracking {
			f.sequence, f.epoch = d.sequence, d.epoch
			d.sequence++
		}
		if err := d.publish(len(d.links) - 1); err != nil {
			return err
		}
		d.freeze()
		if err := d.lock(running(vm)); err != nil {
			return err
		}
		held[d.key] = f
	}
	l.snapshots[made] = held
	l.show(ctx, vm)
	return nil
}

func running(vm *simulator.VirtualMachine) bool {
	return vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn
}

// track follows the machine's setting. It takes effect when a machine without snapshots is stunned for one.
func (l *lab) track(vm *simulator.VirtualMachine, d *disk) {
	wanted := vm.Config.ChangeTrackingEnabled != nil && *vm.Config.ChangeTrackingEnabled
	switch {
	case !wanted:
		d.tracking = false
	case !d.tracking && len(d.links) == 1:
		d.tracking = true
		d.restart()
	}
}

func (s *snapshot) RemoveSnapshotTask(ctx *simulator.Context, req *types.RemoveSnapshot_Task) soap.HasFault {
	vm := ctx.Map.Get(s.Vm).(*simulator.VirtualMachine)
	task := simulator.CreateTask(s.Vm, "removeSnapshot", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if s.lab.take("removal-refused", vm.Name) != nil {
			return nil, &types.GenericVmConfigFault{Reason: "Detected an invalid snapshot configuration."}
		}
		body := s.VirtualMachineSnapshot.RemoveSnapshotTask(ctx, req).(*methods.RemoveSnapshot_TaskBody)
		if _, fault := wait(ctx, body.Res.Returnval); fault != nil {
			return nil, fault
		}
		return nil, s.lab.removed(ctx, vm)
	})
	return &methods.RemoveSnapshot_TaskBody{Res: &types.RemoveSnapshot_TaskResponse{Returnval: task.Run(ctx)}}
}

func (m *machine) RemoveAllSnapshotsTask(ctx *simulator.Context, req *types.RemoveAllSnapshots_Task) soap.HasFault {
	task := simulator.CreateTask(m.VirtualMachine, "removeAllSnapshots", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		body := m.VirtualMachine.RemoveAllSnapshotsTask(ctx, req).(*methods.RemoveAllSnapshots_TaskBody)
		if _, fault := wait(ctx, body.Res.Returnval); fault != nil {
			return nil, fault
		}
		return nil, m.lab.removed(ctx, m.VirtualMachine)
	})
	return &methods.RemoveAllSnapshots_TaskBody{Res: &types.RemoveAllSnapshots_TaskResponse{Returnval: task.Run(ctx)}}
}

func (m *machine) ConsolidateVMDisksTask(ctx *simulator.Context, _ *types.ConsolidateVMDisks_Task) soap.HasFault {
	task := simulator.CreateTask(m.VirtualMachine, "consolidateDisks", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if m.lab.take("consolidation-refused", m.Name) != nil {
			return nil, &types.FileLocked{FileFault: types.FileFault{File: m.Config.Files.VmPathName}}
		}
		return nil, m.lab.consolidate(ctx, m.VirtualMachine)
	})
	return &methods.ConsolidateVMDisks_TaskBody{Res: &types.ConsolidateVMDisks_TaskResponse{Returnval: task.Run(ctx)}}
}

// removed merges what no snapshot needs any more, or leaves it and says so.
func (l *lab) removed(ctx *simulator.Context, vm *simulator.VirtualMachine) types.BaseMethodFault {
	if l.take("consolidation-needed", vm.Name) != nil {
		ctx.Update(vm, []types.PropertyChange{{Name: "runtime.consolidationNeeded", Val: true}})
		return nil
	}
	return l.consolidate(ctx, vm)
}

func (l *lab) consolidate(ctx *simulator.Context, vm *simulator.VirtualMachine) types.BaseMethodFault {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.disks[vm.Self] {
		for n := 1; n < len(d.links); {
			if l.needed(ctx, vm.Self, d, d.links[n-1]) {
				n++
				continue
			}
			if err := l.mergeDown(ctx, vm.Self, d, n); err != nil {
				return &types.SystemErrorFault{Reason: err.Error()}
			}
		}
		if err := d.lock(running(vm)); err != nil {
			return &types.SystemErrorFault{Reason: err.Error()}
		}
	}
	l.show(ctx, vm)
	ctx.Update(vm, []types.PropertyChange{{Name: "runtime.consolidationNeeded", Val: false}})
	return nil
}

// needed tells whether a snapshot of the machine holds a link as it is.
func (l *lab) needed(ctx *simulator.Context, vm ref, d *disk, held *link) bool {
	for of, disks := range l.snapshots {
		s, ok := ctx.Map.Get(of).(*simulator.VirtualMachineSnapshot)
		if ok && s.Vm == vm && disks[d.key] != nil && disks[d.key].link == held {
			return true
		}
	}
	return false
}

func (l *lab) mergeDown(ctx *simulator.Context, vm ref, d *disk, n int) error {
	from, into := d.links[n], d.links[n-1]
	if err := d.merge(n); err != nil {
		return err
	}
	for of, disks := range l.snapshots {
		s, ok := ctx.Map.Get(of).(*simulator.VirtualMachineSnapshot)
		if ok && s.Vm == vm && disks[d.key] != nil && disks[d.key].link == from {
			disks[d.key].link = into
		}
	}
	if n == 1 {
		if err := d.rewritten(); err != nil {
			return err
		}
	}
	for i := n - 1; i < len(d.links)-1; i++ { // the newest one is written to again
		if err := d.publish(i); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) ReconfigVMTask(ctx *simulator.Context, req *types.ReconfigVM_Task) soap.HasFault {
	task := simulator.CreateTask(m.VirtualMachine, "reconfigVm", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		body := m.VirtualMachine.ReconfigVMTask(ctx, req).(*methods.ReconfigVM_TaskBody)
		if body.Fault_ != nil {
			return nil, body.Fault_.Detail.Fault.(types.BaseMethodFault)
		}
		result, fault := wait(ctx, body.Res.Returnval)
		if fault != nil {
			return nil, fault
		}
		if err := m.lab.sync(m.VirtualMachine); err != nil {
			return nil, &types.SystemErrorFault{Reason: err.Error()}
		}
		m.lab.destroyed(req.Spec.DeviceChange)
		return result, nil
	})
	return &methods.ReconfigVM_TaskBody{Res: &types.ReconfigVM_TaskResponse{Returnval: task.Run(ctx)}}
}

// destroyed forgets the disks that a change removed with their files.
func (l *lab) destroyed(changes []types.BaseVirtualDeviceConfigSpec) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, change := range changes {
		spec := change.GetVirtualDeviceConfigSpec()
		if spec.Operation != types.VirtualDeviceConfigSpecOperationRemove || spec.FileOperation != types.VirtualDeviceConfigSpecFileOperationDestroy {
			continue
		}
		if info, ok := spec.Device.GetVirtualDevice().Backing.(types.BaseVirtualDeviceFileBackingInfo); ok {
			l.forget(info.GetVirtualDeviceFileBackingInfo().FileName)
		}
	}
}

// QueryChangedDiskAreas answers with at most so many areas a call; length tells how much of the disk they cover.
func (m *machine) QueryChangedDiskAreas(ctx *simulator.Context, req *types.QueryChangedDiskAreas) soap.HasFault {
	body := new(methods.QueryChangedDiskAreasBody)
	if m.lab.take("query-refused", m.Name) != nil {
		body.Fault_ = simulator.Fault("Error caused by file", &types.FileFault{File: m.Config.Files.VmPathName})
		return body
	}
	m.lab.mu.Lock()
	defer m.lab.mu.Unlock()
	found, fault := m.areas(ctx, req)
	if fault != nil {
		body.Fault_ = simulator.Fault("", fault)
		return body
	}
	d := m.lab.disk(m.Self, req.DeviceKey)
	body.Res = &types.QueryChangedDiskAreasResponse{
		Returnval: page(found, req.StartOffset, d.size, int(m.lab.faults.value("areas-limit", 2000))),
	}
	return body
}

func (m *machine) areas(ctx *simulator.Context, req *types.QueryChangedDiskAreas) ([]area, types.BaseMethodFault) {
	d := m.lab.disk(m.Self, req.DeviceKey)
	if d == nil {
		return nil, invalid("deviceKey")
	}
	if req.StartOffset < 0 || req.StartOffset >= d.size {
		return nil, invalid("startOffset")
	}
	upto, last, epoch := len(d.links)-1, d.sequence, d.epoch
	if req.Snapshot != nil {
		f := m.lab.snapshots[*req.Snapshot][d.key]
		if f == nil {
			return nil, &types.NotFound{}
		}
		upto, last, epoch = d.position(f.link.file), f.sequence, f.epoch
	} else if m.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff {
		return nil, &types.FileFault{File: d.top().file}
	}
	if !d.tracking || last == 0 {
		return nil, &types.FileFault{File: d.links[upto].file}
	}
	if req.ChangeId == "*" {
		found, err := d.allocated(upto)
		if err != nil {
			return nil, &types.SystemErrorFault{Reason: err.Error()}
		}
		return found, nil
	}
	first, ok := parsed(req.ChangeId, epoch)
	if !ok || epoch != d.epoch || first > last {
		return nil, invalid("changeId")
	}
	found := d.since(first, last)
	if lie := m.lab.faults.on("tracking-lies", m.Name); lie != nil && len(found) > 0 {
		n := min(int(lie.number(0)), len(found)-1)
		found = append(found[:n:n], found[n+1:]...)
	}
	return found, nil
}

func parsed(id, epoch string) (int, bool) {
	at := strings.LastIndexByte(id, '/')
	if at < 0 || id[:at] != epoch {
		return 0, false
	}
	n, err := strconv.Atoi(id[at+1:])
	return n, err == nil && n > 0
}

func invalid(property string) types.BaseMethodFault {
	return &types.InvalidArgument{InvalidProperty: property}
}

func page(found []area, start, size int64, limit int) types.DiskChangeInfo {
	info := types.DiskChangeInfo{StartOffset: start, Length: size - start}
	for _, a := range found {
		if a.start+a.length <= start {
			continue
		}
		low := max(a.start, start)
		if len(info.ChangedArea) == limit {
			last := info.ChangedArea[limit-1]
			info.Length = last.Start + last.Length - start
			break
		}
		info.ChangedArea = append(info.ChangedArea, types.DiskChangeExtent{Start: low, Length: a.start + a.length - low})
	}
	return info
}
