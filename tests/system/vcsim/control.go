// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/vmware/govmomi/simulator"
)

// control is what tests do beside the API: be the guest, look at the truth, count, and break things. Unknown words are errors.
func (l *lab) control() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, do func(q url.Values, body []byte) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			var out any
			if err == nil {
				l.adopt()
				out, err = do(r.URL.Query(), body)
			}
			answer(w, out, err)
		})
	}
	handle("GET /machines", func(url.Values, []byte) (any, error) { return l.tellMachines(), nil })
	handle("POST /write", l.guestWrite)
	handle("GET /read", l.truth)
	handle("GET /digest", l.digest)
	handle("GET /counters", func(url.Values, []byte) (any, error) { return l.counted(false), nil })
	handle("DELETE /counters", func(url.Values, []byte) (any, error) { return l.counted(true), nil })
	handle("POST /readings", l.setReading)
	handle("POST /faults", l.setFault)
	handle("GET /faults", func(url.Values, []byte) (any, error) { return l.faultList(), nil })
	handle("DELETE /faults", l.clearFault)
	handle("POST /expire-sessions", func(url.Values, []byte) (any, error) { l.gate.expire(); return nil, nil })
	handle("POST /restart", l.restart)
	handle("POST /certificate", l.newCertificate)
	handle("POST /epoch", l.newEpoch)
	handle("POST /lose-leases", func(q url.Values, _ []byte) (any, error) {
		if told, ok := l.tellMachines()[q.Get("machine")]; ok {
			l.loseLeases(ref{Type: "VirtualMachine", Value: told.Ref}, "The host ended the lease")
			return nil, nil
		}
		return nil, fmt.Errorf("no machine %q", q.Get("machine"))
	})
	return mux
}

func answer(w http.ResponseWriter, out any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if raw, ok := out.([]byte); ok {
		_, _ = w.Write(raw)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}

// find names a machine and one of its disks, and the snapshot that is meant. The caller holds mu.
func (l *lab) find(q url.Values) (*simulator.VirtualMachine, *disk, int, error) {
	for vm, disks := range l.disks {
		m, ok := l.registry.Get(vm).(*simulator.VirtualMachine)
		if !ok || (m.Name != q.Get("machine") && vm.Value != q.Get("machine")) {
			continue
		}
		for _, d := range disks {
			if d.name != q.Get("disk") {
				continue
			}
			upto, err := l.level(d, q.Get("snapshot"))
			return m, d, upto, err
		}
	}
	return nil, nil, 0, fmt.Errorf("no disk %q of a machine %q", q.Get("disk"), q.Get("machine"))
}

func (l *lab) level(d *disk, snapshot string) (int, error) {
	if snapshot == "" {
		return len(d.links) - 1, nil
	}
	f := l.snapshots[ref{Type: "VirtualMachineSnapshot", Value: snapshot}][d.key]
	if f == nil {
		return 0, fmt.Errorf("no snapshot %q of disk %s", snapshot, d.name)
	}
	return d.position(f.link.file), nil
}

func (l *lab) guestWrite(q url.Values, body []byte) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, d, _, err := l.find(q)
	if err != nil {
		return nil, err
	}
	at, err := strconv.ParseInt(q.Get("offset"), 10, 64)
	if err != nil {
		return nil, err
	}
	return nil, d.write(body, at)
}

func (l *lab) truth(q url.Values, _ []byte) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, d, upto, err := l.find(q)
	if err != nil {
		return nil, err
	}
	at, err := strconv.ParseInt(q.Get("offset"), 10, 64)
	if err != nil {
		return nil, err
	}
	length, err := strconv.ParseInt(q.Get("length"), 10, 64)
	if err != nil || length < 0 || length > 1<<28 {
		return nil, fmt.Errorf("length %q", q.Get("length"))
	}
	data := make([]byte, length)
	return data, d.read(data, at, upto)
}

func (l *lab) digest(q url.Values, _ []byte) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, d, upto, err := l.find(q)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	buffer := make([]byte, vmfsBlock)
	for at := int64(0); at < d.size; at += vmfsBlock {
		part := buffer[:min(vmfsBlock, d.size-at)]
		if err := d.read(part, at, upto); err != nil {
			return nil, err
		}
		_, _ = sum.Write(part)
	}
	return map[string]any{"sha256": hex.EncodeToString(sum.Sum(nil)), "size": d.size}, nil
}

func (l *lab) counted(reset bool) counters {
	l.mu.Lock()
	defer l.mu.Unlock()
	told := l.count
	told.Calls = map[string]int{}
	for name, n := range l.count.Calls {
		told.Calls[name] = n
	}
	if reset {
		l.count = counters{Calls: map[string]int{}}
	}
	return told
}

type toldDisk struct {
	Name     string
	Key      int32
	Size     int64
	Files    []string
	Tracking bool
	ChangeID string
}

type toldMachine struct {
	Ref       string
	Name      string
	Disks     []toldDisk
	Snapshots []string
	Disabled  []disabledMethod
}

func (l *lab) tellMachines() map[string]toldMachine {
	l.mu.Lock()
	defer l.mu.Unlock()
	told := map[string]toldMachine{}
	for vm, disks := range l.disks {
		m, ok := l.registry.Get(vm).(*simulator.VirtualMachine)
		if !ok {
			continue
		}
		t := toldMachine{Ref: vm.Value, Name: m.Name, Disks: []toldDisk{}, Snapshots: []string{}, Disabled: l.disabled[vm]}
		for _, d := range disks {
			shown := toldDisk{Name: d.name, Key: d.key, Size: d.size, Tracking: d.tracking}
			if d.tracking {
				shown.ChangeID = d.changeID(d.sequence)
			}
			for _, link := range d.links {
				shown.Files = append(shown.Files, link.file)
			}
			t.Disks = append(t.Disks, shown)
		}
		for of := range l.snapshots {
			if s, ok := l.registry.Get(of).(*simulator.VirtualMachineSnapshot); ok && s.Vm == vm {
				t.Snapshots = append(t.Snapshots, of.Value)
			}
		}
		slices.Sort(t.Snapshots)
		told[m.Name] = t
	}
	return told
}

var knownFaults = []string{
	"snapshot-refused", "snapshot-slow", "quiesce-timeout", "removal-refused", "consolidation-needed", "consolidation-refused",
	"query-refused", "tracking-lies", "areas-limit", "disable-refused", "enable-refused", "privilege-missing",
	"connection-cut", "lease-refused", "lease-timeout", "host-busy", "export-cut", "import-aborted", "call-refused",
	"guest-tools-silent", "guest-denied", "guest-transfer-cut", "guest-full",
}

func (l *lab) setFault(_ url.Values, body []byte) (any, error) {
	f := &fault{Times: -1}
	if err := json.Unmarshal(body, f); err != nil {
		return nil, err
	}
	if !slices.Contains(knownFaults, f.Name) {
		return nil, fmt.Errorf("no fault %q; there are %v", f.Name, knownFaults)
	}
	if f.Name == "call-refused" {
		f.Name += ":" + f.Value
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, f)
	return nil, nil
}

func (l *lab) faultList() faults {
	l.mu.Lock()
	defer l.mu.Unlock()
	told := faults{}
	for _, f := range l.faults {
		c := *f
		told = append(told, &c)
	}
	return told
}

// clearFault takes back one, by name, or all.
func (l *lab) clearFault(q url.Values, _ []byte) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = slices.DeleteFunc(l.faults, func(f *fault) bool { return q.Get("name") == "" || f.Name == q.Get("name") })
	return nil, nil
}

func (l *lab) restart(q url.Values, _ []byte) (any, error) {
	seconds, err := strconv.ParseFloat(q.Get("seconds"), 64)
	if err != nil || seconds < 0 || seconds > 60 {
		return nil, fmt.Errorf("seconds %q", q.Get("seconds"))
	}
	l.loseLeases(ref{}, "vCenter restarts")
	return nil, l.gate.restart(time.Duration(seconds * float64(time.Second)))
}

func (l *lab) newCertificate(url.Values, []byte) (any, error) {
	err := l.gate.certify(filepath.Join(l.State, "ca.pem"))
	return map[string]string{"thumbprint": l.gate.thumbprint()}, err
}

// newEpoch makes every change id of a disk that was given out meaningless, as a host does that lost its tracking.
func (l *lab) newEpoch(q url.Values, _ []byte) (any, error) {
	ctx := *l.service.Context
	own := &ctx
	l.mu.Lock()
	vm, d, _, err := l.find(q)
	l.mu.Unlock()
	if err != nil {
		return nil, err
	}
	l.registry.WithLock(own, vm, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		d.restart()
		l.show(own, vm)
	})
	return map[string]string{"changeId": d.changeID(d.sequence)}, nil
}
