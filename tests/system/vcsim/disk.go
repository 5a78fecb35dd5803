// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"strings"
)

const (
	grain        = int64(4096)    // of a delta, as in seSparse
	trackedGrain = int64(1 << 16) // of change tracking: a host tracks whole 64 KiB
)

// content is the bytes of a flat disk.
type content interface {
	readAt(p []byte, at int64) error
	writeAt(p []byte, at int64) error
	allocated() ([]area, error)
	grow(size int64) error
}

// fileContent is a disk that no array serves: on NFS, vSAN, or made by an import.
type fileContent struct {
	*os.File
	written map[int64]bool // by blocks of trackedGrain
}

func newFileContent(path string, size int64) (*fileContent, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &fileContent{f, map[int64]bool{}}, f.Truncate(size)
}

func (f *fileContent) readAt(p []byte, at int64) error {
	_, err := f.ReadAt(p, at)
	return err
}

func (f *fileContent) writeAt(p []byte, at int64) error {
	for n := at / trackedGrain; n*trackedGrain < at+int64(len(p)); n++ {
		f.written[n] = true
	}
	_, err := f.WriteAt(p, at)
	return err
}

func (f *fileContent) allocated() ([]area, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var found []area
	for n := range f.written {
		found = append(found, area{n * trackedGrain, min(trackedGrain, info.Size()-n*trackedGrain)})
	}
	return merged(found), nil
}

func (f *fileContent) grow(size int64) error { return f.Truncate(size) }

// link is one file of a disk's chain: the flat base, or a delta whose bytes only the simulator has.
type link struct {
	file   string           // datastore path, "[san1] web/web-000001.vmdk"
	grains map[int64][]byte // of a delta
}

// disk is the truth about a machine's disk. The lab's lock covers it.
type disk struct {
	key   int32
	name  string // scsi0:1
	size  int64
	base  content
	vmfs  *flat // base, where an array serves it
	links []*link
	cid   uint32 // of the base's descriptor

	tracking bool
	epoch    string
	sequence int
	changed  map[int]map[int64]bool // sequence -> tracked grains written in it
}

func newEpoch() string {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw)
	raw[0] = 0x52
	words := make([]string, 16)
	for i, b := range raw {
		words[i] = fmt.Sprintf("%02x", b)
	}
	return strings.Join(words[:8], " ") + "-" + strings.Join(words[8:], " ")
}

// restart begins a new epoch: no id that was given out before means anything now.
func (d *disk) restart() {
	d.epoch, d.sequence, d.changed = newEpoch(), 1, map[int]map[int64]bool{}
}

func (d *disk) changeID(sequence int) string { return d.epoch + "/" + strconv.Itoa(sequence) }

func (d *disk) top() *link { return d.links[len(d.links)-1] }

// read is what a reader of the chain up to link upto sees.
func (d *disk) read(p []byte, at int64, upto int) error {
	if at < 0 || at+int64(len(p)) > d.size {
		return fmt.Errorf("%d+%d lies outside of the disk's %d bytes", at, len(p), d.size)
	}
	if err := d.base.readAt(p, at); err != nil {
		return err
	}
	for _, l := range d.links[1 : upto+1] {
		for n := at / grain; n*grain < at+int64(len(p)); n++ {
			held, ok := l.grains[n]
			if !ok {
				continue
			}
			low, high := max(n*grain, at), min((n+1)*grain, at+int64(len(p)))
			copy(p[low-at:high-at], held[low-n*grain:])
		}
	}
	return nil
}

// write is the guest's: into the newest link, seen by change tracking.
func (d *disk) write(p []byte, at int64) error {
	if at < 0 || at+int64(len(p)) > d.size {
		return fmt.Errorf("%d+%d lies outside of the disk's %d bytes", at, len(p), d.size)
	}
	if d.tracking {
		set := d.changed[d.sequence]
		if set == nil {
			set = map[int64]bool{}
			d.changed[d.sequence] = set
		}
		for n := at / trackedGrain; n*trackedGrain < at+int64(len(p)); n++ {
			set[n] = true
		}
	}
	if len(d.links) == 1 {
		return d.base.writeAt(p, at)
	}
	for len(p) > 0 {
		n, skip := at/grain, at%grain
		part := min(int64(len(p)), grain-skip)
		held := d.top().grains[n]
		if held == nil {
			held = make([]byte, grain)
			if err := d.read(held[:min(grain, d.size-n*grain)], n*grain, len(d.links)-1); err != nil {
				return err
			}
			d.top().grains[n] = held
		}
		copy(held[skip:], p[:part])
		p, at = p[part:], at+part
	}
	return nil
}

// lock keeps the base's lock true: a machine that runs writes to it unless a delta lies above.
func (d *disk) lock(running bool) error {
	switch {
	case d.vmfs == nil:
		return nil
	case len(d.links) > 1:
		return d.vmfs.lock(readOnly)
	case running:
		return d.vmfs.lock(exclusive)
	}
	return d.vmfs.lock(unlocked)
}

// freeze puts a new delta on top and returns the link that stands still now.
func (d *disk) freeze() *link {
	frozen := d.top()
	d.links = append(d.links, &link{d.deltaName(), map[int64][]byte{}})
	return frozen
}

// deltaName is the next free "…-00000N.vmdk".
func (d *disk) deltaName() string {
	stem := strings.TrimSuffix(d.links[0].file, ".vmdk")
	for n := 1; ; n++ {
		name := fmt.Sprintf("%s-%06d.vmdk", stem, n)
		if d.position(name) < 0 {
			return name
		}
	}
}

func (d *disk) position(file string) int {
	for i, l := range d.links {
		if l.file == file {
			return i
		}
	}
	return -1
}

// merge writes link number n (at least 1) into the one below it.
func (d *disk) merge(n int) error {
	from := d.links[n]
	for number, data := range from.grains {
		if n > 1 {
			d.links[n-1].grains[number] = data
		} else if err := d.base.writeAt(data[:min(grain, d.size-number*grain)], number*grain); err != nil {
			return err
		}
	}
	d.links = append(d.links[:n:n], d.links[n+1:]...)
	return nil
}

// since lists what changed after sequence first, up to and with sequence last.
func (d *disk) since(first, last int) []area {
	var found []area
	for sequence := first + 1; sequence <= last; sequence++ {
		for n := range d.changed[sequence] {
			found = append(found, area{n * trackedGrain, min(trackedGrain, d.size-n*trackedGrain)})
		}
	}
	return merged(found)
}

// allocated lists what is not known to be zero in the chain up to link upto.
func (d *disk) allocated(upto int) ([]area, error) {
	found, err := d.base.allocated()
	for _, l := range d.links[1 : upto+1] {
		for n := range l.grains {
			found = append(found, area{n * grain, min(grain, d.size-n*grain)})
		}
	}
	return merged(found), err
}
