// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

type ref = types.ManagedObjectReference

// frozen is what a snapshot holds of a disk: the newest link that stands still, and up to where its changes are known.
type frozen struct {
	link     *link
	sequence int // 0: changes were not tracked
	epoch    string
}

// lab is the double beside the simulator: contents of disks, tracking, leases, faults. “mu“ covers its fields and disks.
// Order of locks: the simulator's (of an object) first, then mu.
type lab struct {
	config
	service  *simulator.Service
	registry *simulator.Registry
	center   *simulator.Datacenter
	gate     *gate
	host     *front // the hosts' NFC service

	mu         sync.Mutex
	datastores map[string]*volume
	disks      map[ref][]*disk
	contents   map[string]*disk // by the base's file: what a disk that is attached again holds
	kept       map[ref]bool     // machines that are being unregistered: their files stay
	snapshots  map[ref]map[int32]*frozen
	disabled   map[ref][]disabledMethod
	leases     map[string]*lease
	uploads    map[string]upload // by their tickets: files on their way into guests
	sessions   map[*simulator.Registry]bool
	faults     faults
	count      counters
	files      int
	readings   map[reading]int64
}

type counters struct {
	Read    int64          // bytes of disks' data that hosts handed out (exports, datastore access)
	Written int64          // bytes that hosts took in
	Calls   map[string]int // of the API, by method
}

// intercept runs before every call of the API. It puts our wrapper of the object into the caller's session, where the
// simulator looks first; its own code goes on using the plain object.
func (l *lab) intercept(ctx *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	l.mu.Lock()
	l.count.Calls[method.Name]++
	l.mu.Unlock()
	if ctx.Session == nil && !open(method) {
		return nil, &types.NotAuthenticated{NoPermission: types.NoPermission{Object: &method.This, PrivilegeId: "System.View"}}
	}
	obj := ctx.Map.Get(method.This)
	if e, ok := obj.(mo.Entity); ok {
		for _, name := range e.Entity().DisabledMethod {
			if name == method.Name {
				return nil, &types.MethodDisabled{Source: l.disabledBy(method.This, name)}
			}
		}
	}
	if vm, ok := obj.(*simulator.VirtualMachine); ok {
		if method.Name == "UnregisterVM" {
			l.mu.Lock()
			l.kept[vm.Self] = true
			l.mu.Unlock()
		}
		if method.Name == "PowerOnVM_Task" && l.busy(vm.Self) {
			return nil, inProgress()
		}
		if l.take("call-refused:"+method.Name, vm.Name) != nil {
			return nil, &types.GenericVmConfigFault{Reason: "refused by the test"}
		}
	}
	if ctx.Session != nil {
		l.wrap(ctx.Session.Registry, obj)
	}
	return nil, nil
}

// open tells whether a property may be read without a session: the simulator answers others with a part that is missing, which
// vCenter does not. What is no reading of properties is left to the simulator.
func open(method *simulator.Method) bool {
	free := func(of ref) bool { return of.Type == "ServiceInstance" || of.Type == "SessionManager" }
	var specs []types.PropertyFilterSpec
	switch req := method.Body.(type) {
	case *fetch:
		return free(req.This)
	case *types.RetrieveProperties:
		specs = req.SpecSet
	case *types.RetrievePropertiesEx:
		specs = req.SpecSet
	}
	for _, spec := range specs {
		for _, object := range spec.ObjectSet {
			if !free(object.Obj) {
				return false
			}
		}
	}
	return true
}

func (l *lab) wrap(session *simulator.Registry, obj mo.Reference) {
	var wrapped mo.Reference
	switch o := obj.(type) {
	case *simulator.VirtualMachine:
		wrapped = &machine{o, l}
	case *simulator.VirtualMachineSnapshot:
		wrapped = &snapshot{o, l}
	case *simulator.ResourcePool:
		wrapped = &pool{o, l}
	case *simulator.GuestFileManager:
		wrapped = &guestFiles{o, l}
	case *simulator.AuthorizationManager:
		wrapped = &authorization{o, l}
	default:
		return
	}
	l.mu.Lock()
	l.sessions[session] = true
	l.mu.Unlock()
	if session.Get(obj.Reference()) == nil {
		session.Put(wrapped)
	}
}

// cleaner takes objects that are gone out of the sessions, and their disks out of the lab.
type cleaner struct {
	mo.Folder // any managed object: the registry wants a reference
	lab       *lab
}

// PutObject fills in what the simulator leaves empty in a machine although the API says that it is always there.
func (c *cleaner) PutObject(_ *simulator.Context, obj mo.Reference) {
	if vm, ok := obj.(*simulator.VirtualMachine); ok {
		for _, runtime := range []*types.VirtualMachineRuntimeInfo{&vm.Runtime, &vm.Summary.Runtime} {
			runtime.FaultToleranceState = types.VirtualMachineFaultToleranceStateNotConfigured
			runtime.RecordReplayState = types.VirtualMachineRecordReplayStateInactive
		}
	}
}

func (c *cleaner) UpdateObject(*simulator.Context, mo.Reference, []types.PropertyChange) {}

func (c *cleaner) RemoveObject(ctx *simulator.Context, gone ref) {
	switch gone.Type {
	case "VirtualMachine", "VirtualMachineSnapshot", "ResourcePool":
	default:
		return // views and filters go while their session's registry is locked, at a logout
	}
	c.lab.mu.Lock()
	var held []*simulator.Registry
	for session := range c.lab.sessions {
		held = append(held, session)
	}
	for _, d := range c.lab.disks[gone] {
		if !c.lab.kept[gone] {
			c.lab.forget(d.links[0].file)
		}
	}
	delete(c.lab.disks, gone)
	delete(c.lab.kept, gone)
	delete(c.lab.snapshots, gone)
	delete(c.lab.disabled, gone)
	c.lab.mu.Unlock()
	for _, session := range held {
		if session.Get(gone) != nil {
			session.Remove(ctx, gone)
		}
	}
}

// forget a disk whose files were deleted. The caller holds mu.
func (l *lab) forget(file string) {
	if d := l.contents[file]; d != nil {
		if f, ok := d.base.(*fileContent); ok {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
		delete(l.contents, file)
	}
}

// virtualDisks of a list of devices.
func virtualDisks(devices object.VirtualDeviceList) []*types.VirtualDisk {
	var found []*types.VirtualDisk
	for _, device := range devices {
		if d, ok := device.(*types.VirtualDisk); ok {
			found = append(found, d)
		}
	}
	return found
}

// diskName is "scsi0:1": kind and bus of the controller, and the unit.
func diskName(devices object.VirtualDeviceList, d *types.VirtualDisk) string {
	kind, bus := "disk", int32(0)
	switch c := devices.FindByKey(d.ControllerKey).(type) {
	case types.BaseVirtualSCSIController:
		kind, bus = "scsi", c.GetVirtualSCSIController().BusNumber
	case types.BaseVirtualSATAController:
		kind, bus = "sata", c.GetVirtualSATAController().BusNumber
	case *types.VirtualNVMEController:
		kind, bus = "nvme", c.BusNumber
	case *types.VirtualIDEController:
		kind, bus = "ide", c.BusNumber
	}
	unit := int32(0)
	if d.UnitNumber != nil {
		unit = *d.UnitNumber
	}
	return kind + strconv.Itoa(int(bus)) + ":" + strconv.Itoa(int(unit))
}

// sync makes the lab's disks those of the machine's configuration: new ones are empty, grown ones grow, removed ones go.
func (l *lab) sync(vm *simulator.VirtualMachine) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	devices := object.VirtualDeviceList(vm.Config.Hardware.Device)
	kept := []*disk{}
	for _, device := range virtualDisks(devices) {
		d := l.disk(vm.Self, device.Key)
		if d == nil {
			var err error
			if d, err = l.newDisk(device, diskName(devices, device), nil); err != nil {
				return err
			}
		}
		if device.CapacityInBytes > d.size {
			if len(d.links) > 1 {
				return fmt.Errorf("%s: a disk with snapshots does not grow", d.name)
			}
			if err := d.base.grow(device.CapacityInBytes); err != nil {
				return err
			}
			d.size = device.CapacityInBytes
		}
		kept = append(kept, d)
	}
	l.disks[vm.Self] = kept
	return nil
}

// adopt takes in machines that were made through the API beside an import.
func (l *lab) adopt() {
	for _, obj := range l.registry.AllReference("VirtualMachine") {
		vm, ok := obj.(*simulator.VirtualMachine)
		l.mu.Lock()
		known := ok && l.disks[vm.Self] != nil
		l.mu.Unlock()
		if ok && !known {
			if err := l.sync(vm); err != nil {
				log.Printf("%s: %v", vm.Name, err)
			}
		}
	}
}

// newDisk attaches content to a device: a place on a VMFS volume, or a new file.
func (l *lab) newDisk(device *types.VirtualDisk, name string, c *diskConfig) (*disk, error) {
	d := &disk{key: device.Key, name: name, size: device.CapacityInBytes, cid: baseCID, changed: map[int]map[int64]bool{}}
	info, ok := device.Backing.(types.BaseVirtualDeviceFileBackingInfo)
	if !ok {
		return nil, fmt.Errorf("%s: %T is not a file", name, device.Backing)
	}
	file := info.GetVirtualDeviceFileBackingInfo().FileName
	d.links = []*link{{file: file}}
	if known := l.contents[file]; known != nil {
		d.base, d.vmfs, d.size, d.cid = known.base, known.vmfs, known.size, known.cid
		return d, nil
	}
	l.contents[file] = d
	if c != nil && c.Place != nil {
		d.vmfs = &flat{l.datastores[c.Datastore], *c.Place, c.Size}
		d.base = d.vmfs
		return d, nil
	}
	l.files++
	content, err := newFileContent(fmt.Sprintf("%s/disk-%d.img", l.State, l.files), d.size)
	d.base = content
	return d, err
}

// disk finds one by its device's key. The caller holds mu.
func (l *lab) disk(vm ref, key int32) *disk {
	for _, d := range l.disks[vm] {
		if d.key == key {
			return d
		}
	}
	return nil
}

// holds tells whether a snapshot of the machine can hold the disk.
func holds(device *types.VirtualDisk) bool {
	switch b := device.Backing.(type) {
	case *types.VirtualDiskFlatVer2BackingInfo:
		return !strings.HasPrefix(b.DiskMode, "independent")
	case *types.VirtualDiskRawDiskMappingVer1BackingInfo:
		return b.CompatibilityMode == string(types.VirtualDiskCompatibilityModeVirtualMode)
	}
	return false
}

// rebacked is the device with the chain's backing up to link upto.
func rebacked(device *types.VirtualDisk, d *disk, upto int, changeID string) *types.VirtualDisk {
	out := *device
	switch b := device.Backing.(type) {
	case *types.VirtualDiskFlatVer2BackingInfo:
		var below *types.VirtualDiskFlatVer2BackingInfo
		for i := 0; i <= upto; i++ {
			c := *b
			c.FileName, c.ChangeId, c.Parent, c.DeltaDiskFormat = d.links[i].file, "", below, ""
			if i > 0 {
				c.DeltaDiskFormat = "seSparseFormat"
			}
			below = &c
		}
		below.ChangeId = changeID
		out.Backing = below
	case *types.VirtualDiskRawDiskMappingVer1BackingInfo:
		var below *types.VirtualDiskRawDiskMappingVer1BackingInfo
		for i := 0; i <= upto; i++ {
			c := *b
			c.FileName, c.ChangeId, c.Parent = d.links[i].file, "", below
			below = &c
		}
		below.ChangeId = changeID
		out.Backing = below
	}
	return &out
}

// show puts the chains into the configurations of the machine and of its snapshots. The caller holds mu and the machine.
func (l *lab) show(ctx *simulator.Context, vm *simulator.VirtualMachine) {
	ctx.Update(vm, []types.PropertyChange{{Name: "config.hardware.device", Val: l.devices(vm.Self, vm.Config.Hardware.Device, nil)}})
	for of, held := range l.snapshots {
		if s, ok := ctx.Map.Get(of).(*simulator.VirtualMachineSnapshot); ok && s.Vm == vm.Self {
			ctx.Update(s, []types.PropertyChange{{Name: "config.hardware.device", Val: l.devices(vm.Self, s.Config.Hardware.Device, held)}})
		}
	}
}

func (l *lab) devices(vm ref, devices []types.BaseVirtualDevice, held map[int32]*frozen) []types.BaseVirtualDevice {
	out := make([]types.BaseVirtualDevice, 0, len(devices))
	for _, device := range devices {
		if v, ok := device.(*types.VirtualDisk); ok {
			if d := l.disk(vm, v.Key); d != nil && holds(v) {
				device = l.shown(v, d, held)
			}
		}
		out = append(out, device)
	}
	return out
}

func (l *lab) shown(v *types.VirtualDisk, d *disk, held map[int32]*frozen) types.BaseVirtualDevice {
	if held == nil {
		id := ""
		if d.tracking {
			id = d.changeID(d.sequence)
		}
		return rebacked(v, d, len(d.links)-1, id)
	}
	f := held[d.key]
	if f == nil {
		return v
	}
	id := ""
	if f.sequence > 0 {
		id = f.epoch + "/" + strconv.Itoa(f.sequence)
	}
	return rebacked(v, d, d.position(f.link.file), id)
}
