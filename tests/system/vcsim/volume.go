// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"regexp"
	"sort"
)

const (
	vmfsBlock = int64(1 << 20)

	kindSmall = 1 // types of pointers, their low three bits
	kindLarge = 7

	factSize   = 0x14 // of a file descriptor's facts: bytes (u64), allocated blocks (u64), blocks to be zeroed (u32)
	factBlocks = 0x24
	factZeroed = 0x48
)

// area is a range of a disk in bytes.
type area struct{ start, length int64 }

// volume is a VMFS volume on the backing files of LUNs that the array serves at the same time.
type volume struct {
	luns  []lunConfig
	files []*os.File
	free  [2]int64
}

func openVolume(c datastoreConfig) (*volume, error) {
	v := &volume{luns: c.Luns, free: c.Free}
	for _, lun := range c.Luns {
		f, err := os.OpenFile(lun.File, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		v.files = append(v.files, f)
	}
	return v, nil
}

// each splits a range of the volume at the borders of its LUNs.
func (v *volume) each(at int64, p []byte, do func(f *os.File, p []byte, at int64) (int, error)) error {
	for i, lun := range v.luns {
		if at < lun.Size {
			n := min(int64(len(p)), lun.Size-at)
			if _, err := do(v.files[i], p[:n], lun.DataAt+at); err != nil {
				return err
			}
			if p = p[n:]; len(p) == 0 {
				return nil
			}
			at = 0
			continue
		}
		at -= lun.Size
	}
	return fmt.Errorf("%d bytes behind the end of the volume", len(p))
}

func (v *volume) readAt(p []byte, at int64) error {
	return v.each(at, p, func(f *os.File, p []byte, at int64) (int, error) { return f.ReadAt(p, at) })
}

func (v *volume) writeAt(p []byte, at int64) error {
	return v.each(at, p, func(f *os.File, p []byte, at int64) (int, error) { return f.WriteAt(p, at) })
}

func (v *volume) number(at int64) (uint64, error) {
	var raw [8]byte
	err := v.readAt(raw[:], at)
	return binary.LittleEndian.Uint64(raw[:]), err
}

// take finds a free block for a disk that grows.
func (v *volume) take() (int64, error) {
	if v.free[0] >= v.free[1] {
		return 0, fmt.Errorf("the volume is full")
	}
	v.free[0]++
	return v.free[0] - 1, nil
}

// flat is the content of a flat disk on a volume; it allocates and zeroes blocks as a host does. Not for several callers at once.
type flat struct {
	*volume
	place placeConfig
	size  int64
}

// block tells where a block of the disk lies in the volume: its number there, -1 for none; and if it has to be zeroed first.
func (f *flat) block(n int64) (slot, number int64, zeroed bool, err error) {
	for _, run := range f.place.Slots {
		if n < run[0] || n >= run[0]+run[1] {
			continue
		}
		slot = run[2] + 8*(n-run[0])
		p, err := f.number(slot)
		switch {
		case err != nil || p == 0:
			return slot, -1, false, err
		case p&7 == kindSmall:
			return slot, int64(p>>15&0x7fffffff)*512 + int64(p>>51), p>>7&0xff != 0, nil
		case p&7 == kindLarge:
			return slot, int64(p>>15&0x7fffffff)*512 + n%512, false, nil
		}
		return 0, 0, false, fmt.Errorf("block %d: pointer %#x of an unknown kind", n, p)
	}
	return 0, 0, false, fmt.Errorf("block %d has no pointer", n)
}

func (f *flat) readAt(p []byte, at int64) error {
	return eachBlock(p, at, func(p []byte, n, skip int64) error {
		_, number, zeroed, err := f.block(n)
		if err != nil {
			return err
		}
		if number < 0 || zeroed {
			clear(p)
			return nil
		}
		return f.volume.readAt(p, number*vmfsBlock+skip)
	})
}

func (f *flat) writeAt(p []byte, at int64) error {
	return eachBlock(p, at, func(p []byte, n, skip int64) error {
		slot, number, zeroed, err := f.block(n)
		if err != nil {
			return err
		}
		if number < 0 || zeroed {
			if number, err = f.allocate(slot, number); err != nil {
				return err
			}
		}
		return f.volume.writeAt(p, number*vmfsBlock+skip)
	})
}

// allocate gives a hole a block, and a block to be zeroed its zeroes; the descriptor's counts follow.
func (f *flat) allocate(slot, number int64) (int64, error) {
	count, width, change := int64(factZeroed), 4, int64(-1)
	if number < 0 {
		count, width, change = factBlocks, 8, 1
		var err error
		if number, err = f.take(); err != nil {
			return 0, err
		}
	}
	if err := f.volume.writeAt(make([]byte, vmfsBlock), number*vmfsBlock); err != nil {
		return 0, err
	}
	pointer := kindSmall | uint64(number/512)<<15 | uint64(number%512)<<51
	if err := f.volume.writeAt(binary.LittleEndian.AppendUint64(nil, pointer), slot); err != nil {
		return 0, err
	}
	old, err := f.number(f.place.Facts + count)
	if err != nil {
		return 0, err
	}
	raw := binary.LittleEndian.AppendUint64(nil, uint64(int64(old)+change))
	return number, f.volume.writeAt(raw[:width], f.place.Facts+count)
}

// allocated lists what the map calls data: neither holes nor blocks to be zeroed.
func (f *flat) allocated() ([]area, error) {
	var found []area
	for n := int64(0); n*vmfsBlock < f.size; n++ {
		_, number, zeroed, err := f.block(n)
		if err != nil {
			return nil, err
		}
		if number >= 0 && !zeroed {
			found = append(found, area{n * vmfsBlock, min(vmfsBlock, f.size-n*vmfsBlock)})
		}
	}
	return merged(found), nil
}

// Lock modes of a file: nobody has it open, one host writes to it, hosts read it.
const (
	unlocked  = 0
	exclusive = 1
	readOnly  = 2

	factsAfterLock = 4096 // a descriptor's facts stand behind its lock
	lockMode       = 0x24
)

// lock tells how hosts have the file open, where they tell each other.
func (f *flat) lock(mode uint32) error {
	at := f.place.Facts - factsAfterLock + lockMode
	return f.volume.writeAt(binary.LittleEndian.AppendUint32(nil, mode), at)
}

// grow extends the file by holes and tells the descriptor its size.
func (f *flat) grow(size int64) error {
	last := f.place.Slots[len(f.place.Slots)-1]
	if size > (last[0]+last[1])*vmfsBlock {
		return fmt.Errorf("%d bytes: there are pointers for %d blocks", size, last[0]+last[1])
	}
	text := make([]byte, f.place.Room)
	if err := f.volume.readAt(text, f.place.Descriptor); err != nil {
		return err
	}
	grown := extentSize.ReplaceAll(bytes.TrimRight(text, "\n"), fmt.Appendf(nil, "RW %d ", size/sector))
	if int64(len(grown)) > f.place.Room {
		return fmt.Errorf("the descriptor is full")
	}
	grown = append(grown, bytes.Repeat([]byte("\n"), int(f.place.Room)-len(grown))...)
	if err := f.volume.writeAt(grown, f.place.Descriptor); err != nil {
		return err
	}
	f.size = size
	return f.volume.writeAt(binary.LittleEndian.AppendUint64(nil, uint64(size)), f.place.Facts+factSize)
}

var extentSize = regexp.MustCompile(`(?m)^RW \d+ `)

func eachBlock(p []byte, at int64, do func(p []byte, n, skip int64) error) error {
	for len(p) > 0 {
		n, skip := at/vmfsBlock, at%vmfsBlock
		part := min(int64(len(p)), vmfsBlock-skip)
		if err := do(p[:part], n, skip); err != nil {
			return err
		}
		p, at = p[part:], at+part
	}
	return nil
}

// merged sorts areas and joins those that touch.
func merged(areas []area) []area {
	sort.Slice(areas, func(i, j int) bool { return areas[i].start < areas[j].start })
	var out []area
	for _, a := range areas {
		if n := len(out); n > 0 && a.start <= out[n-1].start+out[n-1].length {
			out[n-1].length = max(out[n-1].length, a.start+a.length-out[n-1].start)
			continue
		}
		out = append(out, a)
	}
	return out
}
