// SPDX-License-Identifier: Apache-2.0

package main

import "strconv"

// fault is a switch that a test set: what goes wrong, for which machine (empty: any), how often (negative: until cleared).
type fault struct {
	Name    string
	Machine string
	Times   int
	Value   string
}

type faults []*fault

func (f *fault) number(unset float64) float64 {
	if n, err := strconv.ParseFloat(f.Value, 64); err == nil {
		return n
	}
	return unset
}

// on finds a switch that is set, without using it up. The caller holds the lab's lock.
func (all faults) on(name, machine string) *fault {
	for _, f := range all {
		if f.Name == name && f.Times != 0 && (f.Machine == "" || f.Machine == machine) {
			return f
		}
	}
	return nil
}

// value of a switch that is a number. The caller holds the lab's lock.
func (all faults) value(name string, unset float64) float64 {
	if f := all.on(name, ""); f != nil {
		return f.number(unset)
	}
	return unset
}

// take finds a switch and counts it down.
func (l *lab) take(name, machine string) *fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.faults.on(name, machine)
	if f != nil && f.Times > 0 {
		f.Times--
	}
	return f
}
