// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// The stream-optimised VMDK ("Virtual Disk Format 5.0"), in sectors of 512 bytes: header, descriptor, compressed grains with
// markers, tables, directory, footer.
const (
	sector       = 512
	streamGrain  = int64(64 << 10)
	tableEntries = 512
	overhead     = 128
	atEnd        = ^uint64(0)

	markEnd, markTable, markDirectory, markFooter, markProgress = 0, 1, 2, 3, 4
)

// streamHeader is the first sector, little-endian.
type streamHeader struct {
	Magic           [4]byte
	Version, Flags  uint32
	Capacity, Grain uint64
	DescriptorAt    uint64
	DescriptorSize  uint64
	TableEntries    uint32
	RedundantAt     uint64
	DirectoryAt     uint64
	Overhead        uint64
	Unclean         uint8
	Newlines        [4]byte
	CompressionKind uint16
	Reserved        [433]byte
}

// streamWriter counts sectors.
type streamWriter struct {
	w      io.Writer
	sector uint64
}

func (s *streamWriter) put(p []byte) error {
	if rest := len(p) % sector; rest != 0 {
		p = append(p[:len(p):len(p)], make([]byte, sector-rest)...)
	}
	_, err := s.w.Write(p)
	s.sector += uint64(len(p) / sector)
	return err
}

func (s *streamWriter) meta(kind uint32, content []byte) error {
	marker := binary.LittleEndian.AppendUint64(nil, uint64((len(content)+sector-1)/sector))
	marker = binary.LittleEndian.AppendUint32(marker, 0)
	marker = binary.LittleEndian.AppendUint32(marker, kind)
	if err := s.put(marker); err != nil || len(content) == 0 {
		return err
	}
	return s.put(content)
}

func packed(values []uint32) []byte {
	var out []byte
	for _, v := range values {
		out = binary.LittleEndian.AppendUint32(out, v)
	}
	return out
}

// writeStream sends a disk of size bytes; only grains in the given areas are looked at. read fills its argument.
func writeStream(w io.Writer, size int64, areas []area, read func(p []byte, at int64) error) error {
	head := streamHeader{
		Magic: [4]byte{'K', 'D', 'M', 'V'}, Version: 3, Flags: 0x30001, Capacity: uint64(size / sector), Grain: uint64(streamGrain / sector),
		DescriptorAt: 1, DescriptorSize: 20, TableEntries: tableEntries, DirectoryAt: atEnd, Overhead: overhead,
		Newlines: [4]byte{'\n', ' ', '\r', '\n'}, CompressionKind: 1,
	}
	out := &streamWriter{w: w}
	descriptor := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n"+
		"# Extent description\nRW %d SPARSE \"disk.vmdk\"\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n", size/sector)
	if err := out.put(raw(head)); err != nil {
		return err
	}
	if err := out.put(append([]byte(descriptor), make([]byte, (overhead-1)*sector-len(descriptor))...)); err != nil {
		return err
	}
	directory, err := writeGrains(out, size, areas, read)
	if err != nil {
		return err
	}
	if err := out.meta(markDirectory, packed(directory)); err != nil {
		return err
	}
	directorySectors := uint64((len(directory)*4 + sector - 1) / sector)
	head.DirectoryAt = out.sector - directorySectors
	if err := out.meta(markFooter, raw(head)); err != nil {
		return err
	}
	return out.meta(markEnd, nil)
}

func raw(head streamHeader) []byte {
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, head)
	return b.Bytes()
}

// writeGrains sends grains and, behind those of each table that has any, the table. It returns the tables' sectors.
func writeGrains(out *streamWriter, size int64, areas []area, read func(p []byte, at int64) error) ([]uint32, error) {
	grains := (size + streamGrain - 1) / streamGrain
	directory := make([]uint32, (grains+tableEntries-1)/tableEntries)
	table, used, current := make([]uint32, tableEntries), false, int64(0)
	flush := func() error {
		if !used {
			return nil
		}
		if err := out.meta(markTable, packed(table)); err != nil {
			return err
		}
		directory[current] = uint32(out.sector) - tableEntries*4/sector
		clear(table)
		used = false
		return nil
	}
	buffer, zeroes := make([]byte, streamGrain), make([]byte, streamGrain)
	last := int64(-1)
	for _, a := range areas {
		for n := max(a.start/streamGrain, last+1); n*streamGrain < a.start+a.length; n++ {
			last = n
			if n/tableEntries != current {
				if err := flush(); err != nil {
					return nil, err
				}
				current = n / tableEntries
			}
			clear(buffer)
			if err := read(buffer[:min(streamGrain, size-n*streamGrain)], n*streamGrain); err != nil {
				return nil, err
			}
			if bytes.Equal(buffer, zeroes) {
				continue
			}
			table[n%tableEntries], used = uint32(out.sector), true
			if err := writeGrain(out, n, buffer); err != nil {
				return nil, err
			}
		}
	}
	return directory, flush()
}

func writeGrain(out *streamWriter, n int64, data []byte) error {
	var b bytes.Buffer
	z, _ := zlib.NewWriterLevel(&b, zlib.BestSpeed)
	_, _ = z.Write(data)
	_ = z.Close()
	marker := binary.LittleEndian.AppendUint64(nil, uint64(n*streamGrain/sector))
	marker = binary.LittleEndian.AppendUint32(marker, uint32(b.Len()))
	return out.put(append(marker, b.Bytes()...))
}

// readStream takes a disk of size bytes, grain by grain as it comes; what is not in the stream is left as it was.
func readStream(r io.Reader, size int64, write func(p []byte, at int64) error) error {
	in := bufio.NewReaderSize(r, 1<<20)
	var head streamHeader
	if err := binary.Read(in, binary.LittleEndian, &head); err != nil {
		return err
	}
	switch {
	case string(head.Magic[:]) != "KDMV" || head.Flags&0x30000 != 0x30000 || head.CompressionKind != 1:
		return fmt.Errorf("no stream-optimised VMDK")
	case int64(head.Capacity)*sector != size:
		return fmt.Errorf("a disk of %d bytes came for one of %d", int64(head.Capacity)*sector, size)
	case head.Overhead == 0 || head.Overhead > 1<<16:
		return fmt.Errorf("overhead %d", head.Overhead)
	}
	if err := checkDescriptor(in, head); err != nil {
		return err
	}
	footer := head.DirectoryAt != atEnd // who has the directory in front needs none
	for {
		more, err := readMarker(in, int64(head.Grain)*sector, size, &footer, write)
		if err != nil || !more {
			return err
		}
	}
}

func checkDescriptor(in io.Reader, head streamHeader) error {
	rest := make([]byte, (head.Overhead-1)*sector)
	if _, err := io.ReadFull(in, rest); err != nil {
		return err
	}
	if !strings.Contains(string(rest), `createType="streamOptimized"`) {
		return fmt.Errorf("the descriptor does not say streamOptimized")
	}
	return nil
}

// readMarker takes one grain or piece of metadata; false behind the last one.
func readMarker(in io.Reader, grain, size int64, footer *bool, write func(p []byte, at int64) error) (bool, error) {
	first := make([]byte, sector)
	if _, err := io.ReadFull(in, first); err != nil {
		return false, fmt.Errorf("the stream ends before its end: %w", err)
	}
	value, length := binary.LittleEndian.Uint64(first), int(binary.LittleEndian.Uint32(first[8:]))
	if length == 0 {
		kind := binary.LittleEndian.Uint32(first[12:])
		*footer = *footer || kind == markFooter
		if kind == markEnd {
			if !*footer {
				return false, fmt.Errorf("the stream has no footer")
			}
			return false, nil
		}
		if kind > markProgress || value > 1<<24 {
			return false, fmt.Errorf("marker of kind %d with %d sectors", kind, value)
		}
		_, err := io.CopyN(io.Discard, in, int64(value)*sector)
		return true, err
	}
	if int64(length) > 2*grain {
		return false, fmt.Errorf("a grain of %d bytes", length)
	}
	data := append([]byte{}, first[12:min(12+length, sector)]...)
	if length > len(data) {
		rest := make([]byte, (12+length+sector-1)/sector*sector-sector)
		if _, err := io.ReadFull(in, rest); err != nil {
			return false, err
		}
		data = append(data, rest[:length-len(data)]...)
	}
	return true, writeGrainOf(data, int64(value)*sector, grain, size, write)
}

func writeGrainOf(data []byte, at, grain, size int64, write func(p []byte, at int64) error) error {
	z, err := zlib.NewReader(bytes.NewReader(data))
	if err != nil {
		return err
	}
	plain, err := io.ReadAll(io.LimitReader(z, grain+1))
	if err != nil {
		return err
	}
	if at < 0 || at >= size || at%grain != 0 || int64(len(plain)) > grain {
		return fmt.Errorf("a grain of %d bytes at %d of a disk of %d", len(plain), at, size)
	}
	return write(plain[:min(int64(len(plain)), size-at)], at)
}
