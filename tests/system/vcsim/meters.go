// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// meters answers QueryPerf for hosts. The simulator's own answer echoes an instance of "*"; a host gives one series for each
// datastore instead, and here those are the ones that a test has set.
type meters struct {
	*simulator.PerformanceManager
	lab *lab
}

// reading is one value of a counter of one host: "" is the host as a whole, else a datastore's instance.
type reading struct {
	host, counter, instance string
}

func (l *lab) meter() error {
	reference := l.registry.Get(vim25.ServiceInstance).(interface{ ServiceContent() types.ServiceContent }).ServiceContent().PerfManager
	manager, ok := l.registry.Get(*reference).(*simulator.PerformanceManager)
	if !ok {
		return fmt.Errorf("the simulator has no performance manager")
	}
	l.registry.Put(&meters{PerformanceManager: manager, lab: l})
	return nil
}

func (m *meters) name(id int32) string {
	for _, c := range m.PerfCounter {
		if c.Key == id {
			return c.GroupInfo.GetElementDescription().Key + "." + c.NameInfo.GetElementDescription().Key + "." + string(c.RollupType)
		}
	}
	return ""
}

func (m *meters) QueryPerf(ctx *simulator.Context, req *types.QueryPerf) soap.HasFault {
	res := m.PerformanceManager.QueryPerf(ctx, req)
	body, ok := res.(*methods.QueryPerfBody)
	if !ok || body.Res == nil {
		return res
	}
	for _, one := range body.Res.Returnval {
		metric, ok := one.(*types.PerfEntityMetric)
		if !ok {
			continue
		}
		host, _ := ctx.Map.Get(metric.Entity).(mo.Entity)
		if host == nil {
			continue
		}
		metric.Value = m.values(host.Entity().Name, metric)
	}
	return res
}

func (m *meters) values(host string, metric *types.PerfEntityMetric) []types.BasePerfMetricSeries {
	m.lab.mu.Lock()
	defer m.lab.mu.Unlock()
	var found []types.BasePerfMetricSeries
	for _, series := range metric.Value {
		ints := series.(*types.PerfMetricIntSeries)
		name := m.name(ints.Id.CounterId)
		if ints.Id.Instance == "" {
			if v, ok := m.lab.readings[reading{host, name, ""}]; ok {
				fill(ints.Value, v)
			}
			found = append(found, ints)
			continue
		}
		for known, v := range m.lab.readings {
			if known.host == host && known.counter == name && known.instance != "" {
				copied := &types.PerfMetricIntSeries{Value: make([]int64, len(ints.Value))}
				copied.Id = types.PerfMetricId{CounterId: ints.Id.CounterId, Instance: known.instance}
				fill(copied.Value, v)
				found = append(found, copied)
			}
		}
	}
	return found
}

func fill(values []int64, v int64) {
	for i := range values {
		values[i] = v
	}
}

// setReading is what a test does: POST /readings?host=…&counter=datastore.totalReadLatency.average&instance=…&value=12
func (l *lab) setReading(q url.Values, _ []byte) (any, error) {
	value, err := strconv.ParseInt(q.Get("value"), 10, 64)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.readings[reading{q.Get("host"), q.Get("counter"), q.Get("instance")}] = value
	return nil, nil
}
