// SPDX-License-Identifier: Apache-2.0

package main

import (
	"reflect"
	"slices"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// authorization adds what backup software uses of vCenter's internal interface, and privileges that can be missing.
type authorization struct {
	*simulator.AuthorizationManager
	lab *lab
}

type disabledMethod struct {
	Method string
	Source string
	Reason string
}

// DisableMethods and EnableMethods are in urn:internalvim25; their shapes are those that govmomi's own client sends.
type DisableMethods struct {
	This   ref                            `xml:"_this"`
	Entity []ref                          `xml:"entity"`
	Method []object.DisabledMethodRequest `xml:"method"`
	Source string                         `xml:"sourceId"`
	Scope  *bool                          `xml:"sessionScope"`
}

type EnableMethods struct {
	This   ref      `xml:"_this"`
	Entity []ref    `xml:"entity"`
	Method []string `xml:"method"`
	Source string   `xml:"sourceId"`
}

type DisableMethodsResponse struct{}
type EnableMethodsResponse struct{}

type disableMethodsBody struct {
	Res    *DisableMethodsResponse `xml:"urn:vim25 DisableMethodsResponse,omitempty"`
	Fault_ *soap.Fault
}

type enableMethodsBody struct {
	Res    *EnableMethodsResponse `xml:"urn:vim25 EnableMethodsResponse,omitempty"`
	Fault_ *soap.Fault
}

func (b *disableMethodsBody) Fault() *soap.Fault { return b.Fault_ }
func (b *enableMethodsBody) Fault() *soap.Fault  { return b.Fault_ }

func init() {
	types.Add("DisableMethods", reflect.TypeOf(DisableMethods{}))
	types.Add("EnableMethods", reflect.TypeOf(EnableMethods{}))
}

func (a *authorization) DisableMethods(ctx *simulator.Context, req *DisableMethods) soap.HasFault {
	if a.lab.take("disable-refused", "") != nil {
		fault := &types.NoPermission{Object: &req.This, PrivilegeId: "Global.DisableMethods"}
		return &disableMethodsBody{Fault_: simulator.Fault("", fault)}
	}
	for _, entity := range req.Entity {
		a.lab.mu.Lock()
		for _, m := range req.Method {
			entry := disabledMethod{m.Method, req.Source, m.Reason}
			if !slices.Contains(a.lab.disabled[entity], entry) {
				a.lab.disabled[entity] = append(a.lab.disabled[entity], entry)
			}
		}
		a.lab.mu.Unlock()
		a.tell(ctx, entity)
	}
	return &disableMethodsBody{Res: &DisableMethodsResponse{}}
}

// EnableMethods takes back what the same source had disabled; another source's stays.
func (a *authorization) EnableMethods(ctx *simulator.Context, req *EnableMethods) soap.HasFault {
	if a.lab.take("enable-refused", "") != nil {
		fault := &types.NoPermission{Object: &req.This, PrivilegeId: "Global.EnableMethods"}
		return &enableMethodsBody{Fault_: simulator.Fault("", fault)}
	}
	for _, entity := range req.Entity {
		a.lab.mu.Lock()
		a.lab.disabled[entity] = slices.DeleteFunc(a.lab.disabled[entity], func(d disabledMethod) bool {
			return d.Source == req.Source && slices.Contains(req.Method, d.Method)
		})
		a.lab.mu.Unlock()
		a.tell(ctx, entity)
	}
	return &enableMethodsBody{Res: &EnableMethodsResponse{}}
}

func (a *authorization) tell(ctx *simulator.Context, entity ref) {
	obj, ok := ctx.Map.Get(entity).(mo.Entity)
	if !ok {
		return
	}
	var names []string
	a.lab.mu.Lock()
	for _, d := range a.lab.disabled[entity] {
		if !slices.Contains(names, d.Method) {
			names = append(names, d.Method)
		}
	}
	a.lab.mu.Unlock()
	ctx.Map.AtomicUpdate(ctx, obj, []types.PropertyChange{{Name: "disabledMethod", Val: names}})
}

func (l *lab) disabledBy(entity ref, method string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.disabled[entity] {
		if d.Method == method {
			return d.Source
		}
	}
	return ""
}

// missing tells whether a test took a privilege from the user.
func (l *lab) missing(privilege string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.faults, func(f *fault) bool { return f.Name == "privilege-missing" && f.Value == privilege })
}

func (a *authorization) HasPrivilegeOnEntities(req *types.HasPrivilegeOnEntities) soap.HasFault {
	body := a.AuthorizationManager.HasPrivilegeOnEntities(req).(*methods.HasPrivilegeOnEntitiesBody)
	a.withhold(body.Res.Returnval)
	return body
}

func (a *authorization) HasUserPrivilegeOnEntities(req *types.HasUserPrivilegeOnEntities) soap.HasFault {
	body := a.AuthorizationManager.HasUserPrivilegeOnEntities(req).(*methods.HasUserPrivilegeOnEntitiesBody)
	a.withhold(body.Res.Returnval)
	return body
}

func (a *authorization) HasPrivilegeOnEntity(req *types.HasPrivilegeOnEntity) soap.HasFault {
	body := a.AuthorizationManager.HasPrivilegeOnEntity(req).(*methods.HasPrivilegeOnEntityBody)
	for i, id := range req.PrivId {
		body.Res.Returnval[i] = !a.lab.missing(id)
	}
	return body
}

func (a *authorization) FetchUserPrivilegeOnEntities(req *types.FetchUserPrivilegeOnEntities) soap.HasFault {
	body := a.AuthorizationManager.FetchUserPrivilegeOnEntities(req).(*methods.FetchUserPrivilegeOnEntitiesBody)
	for i, result := range body.Res.Returnval {
		body.Res.Returnval[i].Privileges = slices.DeleteFunc(slices.Clone(result.Privileges), a.lab.missing)
	}
	return body
}

func (a *authorization) withhold(all []types.EntityPrivilege) {
	for _, entity := range all {
		for i, p := range entity.PrivAvailability {
			entity.PrivAvailability[i].IsGranted = !a.lab.missing(p.PrivId)
		}
	}
}
