// SPDX-License-Identifier: Apache-2.0

package main

// config is what lab.py hands over, as JSON. Offsets and sizes are bytes.
type config struct {
	State      string // scratch directory of this run; the caller removes it
	User       string
	Password   string
	Port       int // of the vCenter; 0: any free one
	Hosts      int // in the cluster
	Standalone int // hosts outside of it
	Datastores []datastoreConfig
	Machines   []machineConfig
}

// datastoreConfig is a VMFS volume on LUNs, or (without Luns) a datastore whose disks are files of the simulator.
type datastoreConfig struct {
	Name    string
	Kind    string // vSphere's word: VMFS, NFS, vsan, VVOL
	UUID    string
	Label   string
	Version string
	Luns    []lunConfig
	Free    [2]int64 // VMFS blocks that nobody uses: the first one, and one past the last
}

// lunConfig is one extent of a VMFS volume: Size bytes of the volume begin at DataAt of the LUN's backing File.
type lunConfig struct {
	File      string
	Name      string // canonical, "naa.…"
	Partition int32
	DataAt    int64
	Size      int64
}

type machineConfig struct {
	Name         string
	Folder       string // below the data centre's VM folder, "prod/web"; empty: the VM folder itself
	Host         int    // index among all hosts, cluster's first
	Power        string // poweredOn, poweredOff, suspended
	Guest        string // guest id
	Tools        string // tools' running status
	InstanceUUID string
	UUID         string
	Annotation   string
	Firmware     string
	Template     bool
	Tracking     bool
	Datastore    string // of the machine's own files
	Attributes   map[string]string
	Tags         []string // "category:tag"
	Disks        []diskConfig
}

type diskConfig struct {
	Controller string // scsi0, scsi1, nvme0, sata0
	Unit       int32
	Size       int64
	Datastore  string
	File       string // descriptor's path within the datastore
	UUID       string
	Thin       bool
	Mode       string // persistent, independent_persistent, …
	Sharing    string
	RDM        string // physicalMode, virtualMode
	RDMLun     string // canonical name of the mapped LUN
	Encrypted  bool
	Place      *placeConfig // on a VMFS volume of LUNs
}

// placeConfig tells where a flat disk lies, as offsets in the VMFS volume.
type placeConfig struct {
	Descriptor int64 // of the descriptor's bytes, with Room that newlines fill
	Room       int64
	Facts      int64       // of the file descriptor's facts: counts of blocks are kept true there
	Slots      [][3]int64  // runs of block pointers: first block of the disk, number, offset of the first pointer
	Deltas     []deltaSlot // files that wait for snapshots' deltas, in the order of their numbers
}

// deltaSlot is where a delta that a later snapshot freezes becomes readable: a thick seSparse file with room, and its descriptor.
type deltaSlot struct {
	File       string // descriptor's path, "web/web-000001.vmdk"
	Descriptor int64  // volume offset of the descriptor's bytes
	Room       int64  // for the descriptor; it is padded with newlines
	First      int64  // first of the file's contiguous blocks
	Blocks     int64
}
