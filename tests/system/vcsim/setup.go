// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// inventory makes the datastores and machines of the configuration, through the simulator's own interface.
type inventory struct {
	lab    *lab
	client *vim25.Client
	finder *find.Finder
	center *object.Datacenter
	hosts  []*object.HostSystem
	fields map[string]int32
	tags   map[string]string // "category:tag" -> id
	rest   *tags.Manager
}

func (l *lab) build(ctx context.Context, server *url.URL) error {
	client, err := vim25.NewClient(ctx, l.service)
	if err != nil {
		return err
	}
	inv := &inventory{lab: l, client: client, finder: find.NewFinder(client), fields: map[string]int32{}, tags: map[string]string{}}
	if inv.center, err = inv.finder.DefaultDatacenter(ctx); err != nil {
		return err
	}
	l.center = l.registry.Get(inv.center.Reference()).(*simulator.Datacenter)
	inv.finder.SetDatacenter(inv.center)
	if inv.hosts, err = inv.finder.HostSystemList(ctx, "*"); err != nil {
		return err
	}
	session := rest.NewClient(httpClient(ctx, server, client))
	if err := session.Login(ctx, server.User); err != nil {
		return err
	}
	inv.rest = tags.NewManager(session)
	for _, c := range l.Datastores {
		if err := inv.datastore(ctx, c); err != nil {
			return fmt.Errorf("datastore %s: %w", c.Name, err)
		}
	}
	for _, c := range l.Machines {
		if err := inv.machine(ctx, c); err != nil {
			return fmt.Errorf("machine %s: %w", c.Name, err)
		}
	}
	return nil
}

func (inv *inventory) datastore(ctx context.Context, c datastoreConfig) error {
	dir := filepath.Join(inv.lab.State, "datastores", c.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var made *object.Datastore
	for _, host := range inv.hosts {
		system, err := host.ConfigManager().DatastoreSystem(ctx)
		if err != nil {
			return err
		}
		one, err := system.CreateLocalDatastore(ctx, c.Name, dir)
		if err != nil {
			return err
		}
		if made == nil { // further hosts mount the same one, and the simulator answers without a name for it
			made = one
		}
	}
	ds := inv.lab.registry.Get(made.Reference()).(*simulator.Datastore)
	ds.Summary.Type = c.Kind
	old := *ds.Info.GetDatastoreInfo()
	old.Url = fmt.Sprintf("ds:///vmfs/volumes/%s/", c.UUID)
	switch c.Kind {
	case "VMFS":
		volume := &types.HostVmfsVolume{
			HostFileSystemVolume: types.HostFileSystemVolume{Type: "VMFS", Name: c.Name},
			BlockSizeMb:          1, BlockSize: 1024, MajorVersion: 6, Version: c.Version, Uuid: c.UUID, VmfsUpgradable: false,
		}
		for _, lun := range c.Luns {
			volume.Capacity += lun.Size
			volume.Extent = append(volume.Extent, types.HostScsiDiskPartition{DiskName: lun.Name, Partition: lun.Partition})
		}
		ds.Info = &types.VmfsDatastoreInfo{DatastoreInfo: old, Vmfs: volume, MaxPhysicalRDMFileSize: 64 << 40, MaxVirtualRDMFileSize: 62 << 40}
	case "NFS":
		nas := &types.HostNasVolume{
			HostFileSystemVolume: types.HostFileSystemVolume{Type: "NFS", Name: c.Name},
			RemoteHost:           "127.0.0.1", RemotePath: "/export/" + c.Name,
		}
		ds.Info = &types.NasDatastoreInfo{DatastoreInfo: old, Nas: nas}
	case "vsan":
		ds.Info = &types.VsanDatastoreInfo{DatastoreInfo: old, MembershipUuid: c.UUID}
	case "VVOL":
		ds.Info = &types.VvolDatastoreInfo{DatastoreInfo: old}
	}
	if len(c.Luns) == 0 {
		return nil
	}
	v, err := openVolume(c)
	inv.lab.datastores[c.Name] = v
	return err
}

func (inv *inventory) machine(ctx context.Context, c machineConfig) error {
	folder, err := inv.folder(ctx, c.Folder)
	if err != nil {
		return err
	}
	host := inv.hosts[c.Host]
	pool, err := host.ResourcePool(ctx)
	if err != nil {
		return err
	}
	spec, err := inv.spec(ctx, c)
	if err != nil {
		return err
	}
	task, err := folder.CreateVM(ctx, *spec, pool, host)
	if err != nil {
		return err
	}
	made, err := task.WaitForResult(ctx)
	if err != nil {
		return err
	}
	vm := object.NewVirtualMachine(inv.client, made.Result.(ref))
	inner := inv.lab.registry.Get(vm.Reference()).(*simulator.VirtualMachine)
	if err := inv.attach(inner, c); err != nil {
		return err
	}
	if err := inv.label(ctx, vm, c); err != nil {
		return err
	}
	return inv.power(ctx, vm, inner, c)
}

func (inv *inventory) folder(ctx context.Context, name string) (*object.Folder, error) {
	folders, err := inv.center.Folders(ctx)
	if err != nil || name == "" {
		return folders.VmFolder, err
	}
	at := folders.VmFolder
	for _, part := range strings.Split(name, "/") {
		next, err := inv.finder.Folder(ctx, path.Join(at.InventoryPath, part))
		if err != nil {
			if next, err = at.CreateFolder(ctx, part); err != nil {
				return nil, err
			}
			next.InventoryPath = path.Join(at.InventoryPath, part)
		}
		at = next
	}
	return at, nil
}

func (inv *inventory) spec(ctx context.Context, c machineConfig) (*types.VirtualMachineConfigSpec, error) {
	spec := &types.VirtualMachineConfigSpec{
		Name: c.Name, GuestId: c.Guest, Annotation: c.Annotation, Uuid: c.UUID, InstanceUuid: c.InstanceUUID,
		Firmware: c.Firmware, NumCPUs: 2, MemoryMB: 1024, ChangeTrackingEnabled: types.NewBool(c.Tracking),
		Files: &types.VirtualMachineFileInfo{VmPathName: fmt.Sprintf("[%s] %s/%s.vmx", c.Datastore, c.Name, c.Name)},
	}
	var devices object.VirtualDeviceList
	made := map[string]types.BaseVirtualDevice{}
	for _, d := range c.Disks {
		if made[d.Controller] == nil {
			controller, err := newController(d.Controller, d.Sharing)
			if err != nil {
				return nil, err
			}
			made[d.Controller] = controller
			devices = append(devices, controller)
		}
		dir := filepath.Join(inv.lab.State, "datastores", d.Datastore, path.Dir(d.File))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		devices = append(devices, newDevice(d, made[d.Controller].GetVirtualDevice().Key))
	}
	nic, err := inv.nic(ctx)
	if err != nil {
		return nil, err
	}
	spec.DeviceChange, err = append(devices, nic).ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	return spec, err
}

func (inv *inventory) nic(ctx context.Context) (types.BaseVirtualDevice, error) {
	network, err := inv.finder.Network(ctx, "VM Network")
	if err != nil {
		return nil, err
	}
	backing, err := network.EthernetCardBackingInfo(ctx)
	if err != nil {
		return nil, err
	}
	nic, err := object.EthernetCardTypes().CreateEthernetCard("vmxnet3", backing)
	nic.GetVirtualDevice().Key = 4000
	return nic, err
}

// newController has the keys that vSphere gives: 1000 and on for SCSI, 15000 for SATA, 31000 for NVMe.
func newController(name, sharing string) (types.BaseVirtualDevice, error) {
	kind, bus := name[:len(name)-1], int32(name[len(name)-1]-'0')
	base := types.VirtualController{BusNumber: bus}
	switch kind {
	case "scsi":
		base.Key = 1000 + bus
		shared := types.VirtualSCSISharingNoSharing
		if strings.HasSuffix(sharing, "SharedBus") {
			shared = types.VirtualSCSISharing(strings.TrimSuffix(sharing, "SharedBus") + "Sharing")
		}
		return &types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{
			VirtualController: base, SharedBus: shared, ScsiCtlrUnitNumber: 7, HotAddRemove: types.NewBool(true),
		}}, nil
	case "sata":
		base.Key = 15000 + bus
		return &types.VirtualAHCIController{VirtualSATAController: types.VirtualSATAController{VirtualController: base}}, nil
	case "nvme":
		base.Key = 31000 + bus
		return &types.VirtualNVMEController{VirtualController: base}, nil
	}
	return nil, fmt.Errorf("no controller %q", name)
}

func newDevice(d diskConfig, controller int32) *types.VirtualDisk {
	unit := d.Unit
	key := 2000 + (controller-1000)*16 + unit
	switch {
	case controller >= 31000:
		key = 32000 + (controller-31000)*64 + unit
	case controller >= 15000:
		key = 16000 + (controller-15000)*30 + unit
	}
	file := types.VirtualDeviceFileBackingInfo{FileName: fmt.Sprintf("[%s] %s", d.Datastore, d.File)}
	disk := &types.VirtualDisk{CapacityInBytes: d.Size, CapacityInKB: d.Size / 1024}
	disk.Key, disk.ControllerKey, disk.UnitNumber = key, controller, &unit
	if d.RDM != "" {
		disk.Backing = &types.VirtualDiskRawDiskMappingVer1BackingInfo{
			VirtualDeviceFileBackingInfo: file, CompatibilityMode: d.RDM, DiskMode: d.Mode, Uuid: d.UUID,
			LunUuid: strings.TrimPrefix(d.RDMLun, "naa."), DeviceName: "vml." + strings.TrimPrefix(d.RDMLun, "naa."),
		}
		return disk
	}
	backing := &types.VirtualDiskFlatVer2BackingInfo{
		VirtualDeviceFileBackingInfo: file, DiskMode: d.Mode, ThinProvisioned: types.NewBool(d.Thin), Uuid: d.UUID,
	}
	if strings.HasPrefix(d.Sharing, "sharing") {
		backing.Sharing = d.Sharing
	}
	disk.Backing = backing
	return disk
}

// attach gives the machine's devices their content.
func (inv *inventory) attach(vm *simulator.VirtualMachine, c machineConfig) error {
	inv.lab.mu.Lock()
	defer inv.lab.mu.Unlock()
	devices := object.VirtualDeviceList(vm.Config.Hardware.Device)
	for _, device := range virtualDisks(devices) {
		name := diskName(devices, device)
		for _, d := range c.Disks {
			if name != fmt.Sprintf("%s:%d", d.Controller, d.Unit) {
				continue
			}
			if d.Encrypted {
				key := &types.CryptoKeyId{KeyId: "key-1", ProviderId: &types.KeyProviderId{Id: "kms"}}
				device.Backing.(*types.VirtualDiskFlatVer2BackingInfo).KeyId = key
				vm.Config.KeyId = key
			}
			made, err := inv.lab.newDisk(device, name, &d)
			if err != nil {
				return err
			}
			inv.lab.disks[vm.Self] = append(inv.lab.disks[vm.Self], made)
		}
	}
	return nil
}

// label sets custom attributes and tags.
func (inv *inventory) label(ctx context.Context, vm *object.VirtualMachine, c machineConfig) error {
	if len(c.Attributes) > 0 {
		manager, err := object.GetCustomFieldsManager(inv.client)
		if err != nil {
			return err
		}
		for name, value := range c.Attributes {
			if inv.fields[name] == 0 {
				field, err := manager.Add(ctx, name, "VirtualMachine", nil, nil)
				if err != nil {
					return err
				}
				inv.fields[name] = field.Key
			}
			if err := manager.Set(ctx, vm.Reference(), inv.fields[name], value); err != nil {
				return err
			}
		}
	}
	for _, tag := range c.Tags {
		id, err := inv.tag(ctx, tag)
		if err != nil {
			return err
		}
		if err := inv.rest.AttachTag(ctx, id, vm.Reference()); err != nil {
			return err
		}
	}
	return nil
}

func (inv *inventory) tag(ctx context.Context, tag string) (string, error) {
	category, name, _ := strings.Cut(tag, ":")
	if inv.tags[category] == "" {
		id, err := inv.rest.CreateCategory(ctx, &tags.Category{Name: category, Cardinality: "MULTIPLE", AssociableTypes: []string{"VirtualMachine"}})
		if err != nil {
			return "", err
		}
		inv.tags[category] = id
	}
	if inv.tags[tag] == "" {
		id, err := inv.rest.CreateTag(ctx, &tags.Tag{Name: name, CategoryID: inv.tags[category]})
		if err != nil {
			return "", err
		}
		inv.tags[tag] = id
	}
	return inv.tags[tag], nil
}

func (inv *inventory) power(ctx context.Context, vm *object.VirtualMachine, inner *simulator.VirtualMachine, c machineConfig) error {
	if c.Template {
		return vm.MarkAsTemplate(ctx)
	}
	if c.Power == "poweredOff" {
		return nil
	}
	task, err := vm.PowerOn(ctx)
	if err == nil {
		err = task.Wait(ctx)
	}
	if err == nil && c.Power == "suspended" {
		if task, err = vm.Suspend(ctx); err == nil {
			err = task.Wait(ctx)
		}
	}
	inner.Guest.ToolsRunningStatus = c.Tools
	inner.Guest.ToolsVersionStatus2 = string(types.VirtualMachineToolsVersionStatusGuestToolsCurrent)
	inner.Summary.Guest.ToolsRunningStatus = c.Tools
	if strings.HasPrefix(c.Guest, "win") {
		inner.Guest.GuestFamily = string(types.VirtualMachineGuestOsFamilyWindowsGuest)
	} else {
		inner.Guest.GuestFamily = string(types.VirtualMachineGuestOsFamilyLinuxGuest)
	}
	for _, d := range inv.lab.disks[inner.Self] {
		if err == nil {
			err = d.lock(running(inner))
		}
	}
	return err
}
