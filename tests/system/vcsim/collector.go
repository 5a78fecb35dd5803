// SPDX-License-Identifier: Apache-2.0

package main

import (
	"reflect"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// collector answers Fetch, by which pyVmomi reads single properties, as vCenter does where a property is not set: with nothing.
type collector struct {
	simulator.PropertyCollector
}

type fetch struct {
	This ref    `xml:"_this"`
	Prop string `xml:"prop"`
}

type fetchBody struct {
	Res    *FetchResponse `xml:"urn:vim25 FetchResponse,omitempty"`
	Fault_ *soap.Fault
}

// FetchResponse gives the element its name.
type FetchResponse struct {
	Returnval types.AnyType `xml:"returnval,omitempty,typeattr"`
}

func (b *fetchBody) Fault() *soap.Fault { return b.Fault_ }

func init() { types.Add("Fetch", reflect.TypeOf(fetch{})) }

func (c *collector) Fetch(ctx *simulator.Context, req *fetch) soap.HasFault {
	if req.This == vim25.ServiceInstance && req.Prop == "content" {
		service := ctx.Map.Get(vim25.ServiceInstance).(interface{ ServiceContent() types.ServiceContent })
		return &fetchBody{Res: &FetchResponse{Returnval: service.ServiceContent()}}
	}
	res := c.RetrievePropertiesEx(ctx, &types.RetrievePropertiesEx{SpecSet: []types.PropertyFilterSpec{{
		PropSet:   []types.PropertySpec{{Type: req.This.Type, PathSet: []string{req.Prop}}},
		ObjectSet: []types.ObjectSpec{{Obj: req.This}},
	}}})
	if res.Fault() != nil {
		return res
	}
	found := res.(*methods.RetrievePropertiesExBody).Res.Returnval.Objects
	switch {
	case len(found) == 0:
		return &fetchBody{Fault_: simulator.Fault("", &types.ManagedObjectNotFound{Obj: req.This})}
	case len(found[0].PropSet) > 0:
		return &fetchBody{Res: &FetchResponse{Returnval: found[0].PropSet[0].Val}}
	case len(found[0].MissingSet) > 0:
		missing := found[0].MissingSet[0].Fault
		return &fetchBody{Fault_: simulator.Fault(missing.LocalizedMessage, missing.Fault)}
	}
	return &fetchBody{Res: &FetchResponse{}}
}
