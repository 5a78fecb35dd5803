// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

const (
	baseCID      = 0xFEED0001 // of the flat base's descriptor, as lab.py writes it; deltas count up from it
	tableGrains  = 4096
	seDirectory  = 16 // sectors
	seTableAlign = 64
)

// publish makes link n, which stands still from now on, readable on its volume, where lab.py left room for it. The base is there.
func (d *disk) publish(n int) error {
	if n == 0 || d.vmfs == nil {
		return nil
	}
	for _, slot := range d.vmfs.place.Deltas {
		if inside(d.links[n].file) == slot.File {
			return d.writeDelta(n, slot)
		}
	}
	return nil
}

// inside is a datastore path without its datastore.
func inside(file string) string {
	_, name, _ := strings.Cut(file, "] ")
	return name
}

// contentID of link n: the base's own; of a delta, the number in its name above the one that every base begins with.
func (d *disk) contentID(n int) uint32 {
	if n == 0 {
		return d.cid
	}
	var number uint32
	stem := strings.TrimSuffix(d.links[n].file, ".vmdk")
	_, _ = fmt.Sscanf(stem[strings.LastIndexByte(stem, '-')+1:], "%06d", &number)
	return baseCID + number
}

var contentLine = regexp.MustCompile(`(?m)^CID=[0-9a-f]{8}$`)

// rewritten gives the base another content id, as a host does when it writes to it after a snapshot. Deltas that stay above it
// are told by publish.
func (d *disk) rewritten() error {
	if d.vmfs == nil {
		return nil
	}
	d.cid += 0x01000000
	place := d.vmfs.place
	text := make([]byte, place.Room)
	if err := d.vmfs.volume.readAt(text, place.Descriptor); err != nil {
		return err
	}
	return d.vmfs.volume.writeAt(contentLine.ReplaceAll(text, fmt.Appendf(nil, "CID=%08x", d.cid)), place.Descriptor)
}

func (d *disk) writeDelta(n int, slot deltaSlot) error {
	body := d.seSparse(n)
	if int64(len(body)) > slot.Blocks*vmfsBlock {
		return fmt.Errorf("%s: a delta of %d bytes does not fit into %d blocks", slot.File, len(body), slot.Blocks)
	}
	below := d.links[n-1].file
	extent := strings.TrimSuffix(path.Base(slot.File), ".vmdk") + "-sesparse.vmdk"
	text := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=%08x\ncreateType=\"seSparse\"\nparentFileNameHint=%q\n"+
		"# Extent description\nRW %d SESPARSE %q\n\n# The Disk Data Base\n#DDB\n", d.contentID(n), d.contentID(n-1), path.Base(inside(below)), d.size/sector, extent)
	if int64(len(text)) > slot.Room {
		return fmt.Errorf("%s: a descriptor of %d bytes", slot.File, len(text))
	}
	text += strings.Repeat("\n", int(slot.Room)-len(text))
	if err := d.vmfs.volume.writeAt([]byte(text), slot.Descriptor); err != nil {
		return err
	}
	return d.vmfs.volume.writeAt(body, slot.First*vmfsBlock)
}

// seSparse is a link's delta as a host writes it: header, directory, tables of 4,096 grains, grains of 4 KiB.
func (d *disk) seSparse(n int) []byte {
	grains := slices.Sorted(maps.Keys(d.links[n].grains))
	capacity := d.size / sector
	var tables []int64
	for _, g := range grains {
		if t := g / tableGrains; len(tables) == 0 || tables[len(tables)-1] != t {
			tables = append(tables, t)
		}
	}
	entries := (capacity + tableGrains*8 - 1) / (tableGrains * 8)
	directorySize := max(1, (entries*8+sector-1)/sector)
	tablesAt := (seDirectory + directorySize + seTableAlign - 1) / seTableAlign * seTableAlign
	grainsAt := tablesAt + 64*max(1, int64(len(tables)))
	body := make([]byte, grainsAt*sector+int64(len(grains))*grain)
	put := func(at int64, values ...uint64) {
		for i, v := range values {
			binary.LittleEndian.PutUint64(body[at+int64(8*i):], v)
		}
	}
	put(0, 0xCAFEBABE, 0x0000000200000001, uint64(capacity), 8, 64, 0)
	put(80, 1, 1, 2, 2, 4, 4, seDirectory, uint64(directorySize), uint64(tablesAt), uint64(grainsAt-tablesAt), 5, 1, 6, 1,
		uint64(grainsAt), uint64(len(grains)*8))
	put(sector, 0xCAFECAFE, uint64(len(tables)), 1, 0)
	for i, t := range tables {
		put(seDirectory*sector+8*t, 0x10000000<<32|uint64(i))
	}
	for number, g := range grains {
		table := int64(slices.Index(tables, g/tableGrains))
		k := uint64(number)
		put((tablesAt+64*table)*sector+8*(g%tableGrains), 3<<60|(k&0xFFF)<<48|k>>12)
		copy(body[grainsAt*sector+int64(number)*grain:], d.links[n].grains[g])
	}
	return body
}
