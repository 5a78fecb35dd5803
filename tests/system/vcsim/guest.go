// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// guestFiles is the guest operations' file manager: a machine's guest is a directory, STATE/guests/NAME. The users of every
// guest: "root" may do everything; "app" may not give files away.
type guestFiles struct {
	*simulator.GuestFileManager
	lab *lab
}

const guestPassword = "Guest-1"

// upload is a file that was announced and whose content is still to come.
type upload struct {
	file  string
	size  int64
	mode  fs.FileMode
	write bool // over what is there
}

func (l *lab) guest(name string) string { return filepath.Join(l.State, "guests", name) }

// enter checks what every guest operation needs. The path is one of the guest.
func (m *guestFiles) enter(ctx *simulator.Context, vm ref, auth types.BaseGuestAuthentication, path string) (string, string, types.BaseMethodFault) {
	inner, ok := ctx.Map.Get(vm).(*simulator.VirtualMachine)
	if !ok {
		return "", "", &types.ManagedObjectNotFound{Obj: vm}
	}
	if inner.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		return "", "", &types.InvalidPowerState{RequestedState: types.VirtualMachinePowerStatePoweredOn, ExistingState: inner.Runtime.PowerState}
	}
	if inner.Guest.ToolsRunningStatus != string(types.VirtualMachineToolsRunningStatusGuestToolsRunning) || m.lab.take("guest-tools-silent", inner.Name) != nil {
		return "", "", &types.GuestOperationsUnavailable{}
	}
	who, ok := auth.(*types.NamePasswordAuthentication)
	if !ok || who.Password != guestPassword || who.Username != "root" && who.Username != "app" {
		return "", "", &types.InvalidGuestLogin{}
	}
	if m.lab.take("guest-denied", inner.Name) != nil {
		return "", "", &types.GuestPermissionDenied{}
	}
	if !filepath.IsAbs(path) {
		return "", "", invalid("path")
	}
	base := m.lab.guest(inner.Name)
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", "", &types.SystemErrorFault{Reason: err.Error()}
	}
	return filepath.Join(base, filepath.Clean(path)), who.Username, nil
}

// fileFault is how vSphere tells what a guest's system call said.
func fileFault(err error, path string) types.BaseMethodFault {
	at := types.FileFault{File: path}
	switch {
	case errors.Is(err, fs.ErrExist):
		return &types.FileAlreadyExists{FileFault: at}
	case errors.Is(err, fs.ErrNotExist):
		return &types.FileNotFound{FileFault: at}
	case errors.Is(err, fs.ErrPermission):
		return &types.GuestPermissionDenied{}
	}
	return &types.FileFault{File: path, VimFault: types.VimFault{}}
}

func (m *guestFiles) MakeDirectoryInGuest(ctx *simulator.Context, req *types.MakeDirectoryInGuest) soap.HasFault {
	body := new(methods.MakeDirectoryInGuestBody)
	place, _, fault := m.enter(ctx, req.Vm, req.Auth, req.DirectoryPath)
	if fault == nil {
		var err error
		if _, there := os.Lstat(place); there == nil {
			err = fs.ErrExist
		} else if req.CreateParentDirectories {
			err = os.MkdirAll(place, 0o755)
		} else {
			err = os.Mkdir(place, 0o755)
		}
		if err != nil {
			fault = fileFault(err, req.DirectoryPath)
		}
	}
	if fault != nil {
		body.Fault_ = simulator.Fault("", fault)
		return body
	}
	body.Res = new(types.MakeDirectoryInGuestResponse)
	return body
}

// MoveFileInGuest moves no directories, and replaces none.
func (m *guestFiles) MoveFileInGuest(ctx *simulator.Context, req *types.MoveFileInGuest) soap.HasFault {
	body := new(methods.MoveFileInGuestBody)
	from, _, fault := m.enter(ctx, req.Vm, req.Auth, req.SrcFilePath)
	to, _, second := m.enter(ctx, req.Vm, req.Auth, req.DstFilePath)
	if fault == nil {
		fault = second
	}
	if fault == nil {
		there, err := os.Lstat(to)
		switch {
		case err == nil && (there.IsDir() || !req.Overwrite):
			fault = fileFault(fs.ErrExist, req.DstFilePath)
		default:
			if err := os.Rename(from, to); err != nil {
				fault = fileFault(err, req.DstFilePath)
			}
		}
	}
	if fault != nil {
		body.Fault_ = simulator.Fault("", fault)
		return body
	}
	body.Res = new(types.MoveFileInGuestResponse)
	return body
}

func (m *guestFiles) DeleteFileInGuest(ctx *simulator.Context, req *types.DeleteFileInGuest) soap.HasFault {
	body := new(methods.DeleteFileInGuestBody)
	place, _, fault := m.enter(ctx, req.Vm, req.Auth, req.FilePath)
	if fault == nil {
		if there, err := os.Lstat(place); err == nil && there.IsDir() {
			fault = &types.NotAFile{FileFault: types.FileFault{File: req.FilePath}}
		} else if err := os.Remove(place); err != nil {
			fault = fileFault(err, req.FilePath)
		}
	}
	if fault != nil {
		body.Fault_ = simulator.Fault("", fault)
		return body
	}
	body.Res = new(types.DeleteFileInGuestResponse)
	return body
}

func (m *guestFiles) DeleteDirectoryInGuest(ctx *simulator.Context, req *types.DeleteDirectoryInGuest) soap.HasFault {
	body := new(methods.DeleteDirectoryInGuestBody)
	place, _, fault := m.enter(ctx, req.Vm, req.Auth, req.DirectoryPath)
	if fault == nil {
		remove := os.Remove
		if req.Recursive {
			remove = os.RemoveAll
		}
		if err := remove(place); err != nil {
			fault = fileFault(err, req.DirectoryPath)
		}
	}
	if fault != nil {
		body.Fault_ = simulator.Fault("", fault)
		return body
	}
	body.Res = new(types.DeleteDirectoryInGuestResponse)
	return body
}

// ChangeFileAttributesInGuest follows symbolic links, as the reference says of it.
func (m *guestFiles) ChangeFileAttributesInGuest(ctx *simulator.Context, req *types.ChangeFileAttributesInGuest) soap.HasFault {
	body := new(methods.ChangeFileAttributesInGuestBody)
	place, user, fault := m.enter(ctx, req.Vm, req.Auth, req.GuestFilePath)
	if fault == nil {
		fault = change(place, user, req)
	}
	if fault != nil {
		body.Fault_ = simulator.Fault("", fault)
		return body
	}
	body.Res = new(types.ChangeFileAttributesInGuestResponse)
	return body
}

func change(place, user string, req *types.ChangeFileAttributesInGuest) types.BaseMethodFault {
	if _, err := os.Stat(place); err != nil {
		return fileFault(err, req.GuestFilePath)
	}
	if posix, ok := req.FileAttributes.(*types.GuestPosixFileAttributes); ok {
		if posix.OwnerId != nil || posix.GroupId != nil {
			if user != "root" {
				return &types.GuestPermissionDenied{}
			}
			keep := int32(-1)
			uid, gid := cmp.Or(posix.OwnerId, &keep), cmp.Or(posix.GroupId, &keep)
			if err := os.Chown(place, int(*uid), int(*gid)); err != nil {
				return fileFault(err, req.GuestFilePath)
			}
		}
		if posix.Permissions != 0 {
			mode := fs.FileMode(posix.Permissions & 0o777)
			for bit, special := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
				if posix.Permissions&bit != 0 {
					mode |= special
				}
			}
			if err := os.Chmod(place, mode); err != nil {
				return fileFault(err, req.GuestFilePath)
			}
		}
	}
	if moment := req.FileAttributes.GetGuestFileAttributes().ModificationTime; moment != nil {
		if err := os.Chtimes(place, time.Time{}, *moment); err != nil {
			return fileFault(err, req.GuestFilePath)
		}
	}
	return nil
}

// ListFilesInGuest tells names in a directory with "." and "..", as VMware Tools do; of a file, itself.
func (m *guestFiles) ListFilesInGuest(ctx *simulator.Context, req *types.ListFilesInGuest) soap.HasFault {
	body := new(methods.ListFilesInGuestBody)
	place, _, fault := m.enter(ctx, req.Vm, req.Auth, req.FilePath)
	var found []types.GuestFileInfo
	if fault == nil {
		var err error
		if found, err = listGuest(place, req.MatchPattern); err != nil {
			fault = fileFault(err, req.FilePath)
		}
	}
	if fault != nil {
		body.Fault_ = simulator.Fault("", fault)
		return body
	}
	most := cmp.Or(int(req.MaxResults), 50)
	first := min(int(req.Index), len(found))
	last := min(first+most, len(found))
	body.Res = &types.ListFilesInGuestResponse{Returnval: types.GuestListFileInfo{
		Files: found[first:last], Remaining: int32(len(found) - last),
	}}
	return body
}

func listGuest(place, pattern string) ([]types.GuestFileInfo, error) {
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	names := []string{filepath.Base(place)}
	in := filepath.Dir(place)
	if there, err := os.Stat(place); err != nil {
		return nil, err
	} else if there.IsDir() {
		entries, err := os.ReadDir(place)
		if err != nil {
			return nil, err
		}
		names, in = []string{".", ".."}, place
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	var found []types.GuestFileInfo
	for _, name := range names {
		info, err := os.Lstat(filepath.Join(in, name))
		if err != nil || !wanted.MatchString(name) {
			continue
		}
		kind := types.GuestFileTypeFile
		if info.IsDir() {
			kind = types.GuestFileTypeDirectory
		} else if info.Mode()&fs.ModeSymlink != 0 {
			kind = types.GuestFileTypeSymlink
		}
		moment := info.ModTime()
		found = append(found, types.GuestFileInfo{
			Path: name, Type: string(kind), Size: info.Size(),
			Attributes: &types.GuestPosixFileAttributes{
				GuestFileAttributes: types.GuestFileAttributes{ModificationTime: &moment}, Permissions: int64(info.Mode().Perm()),
			},
		})
	}
	return found, nil
}

func (m *guestFiles) InitiateFileTransferToGuest(ctx *simulator.Context, req *types.InitiateFileTransferToGuest) soap.HasFault {
	body := new(methods.InitiateFileTransferToGuestBody)
	place, _, fault := m.enter(ctx, req.Vm, req.Auth, req.GuestFilePath)
	if fault == nil {
		if _, err := os.Stat(filepath.Dir(place)); err != nil {
			fault = fileFault(err, req.GuestFilePath)
		} else if _, err := os.Lstat(place); err == nil && !req.Overwrite {
			fault = fileFault(fs.ErrExist, req.GuestFilePath)
		}
	}
	if fault != nil {
		body.Fault_ = simulator.Fault("", fault)
		return body
	}
	one := upload{file: place, size: req.FileSize, mode: 0o644, write: req.Overwrite}
	if posix, ok := req.FileAttributes.(*types.GuestPosixFileAttributes); ok && posix.Permissions != 0 {
		one.mode = fs.FileMode(posix.Permissions & 0o777)
	}
	m.lab.mu.Lock()
	m.lab.files++
	ticket := strconv.Itoa(m.lab.files) + "-" + strings.Repeat("5ecre7", 4)
	m.lab.uploads[ticket] = one
	m.lab.mu.Unlock()
	address := url.URL{
		Scheme: "https", Host: fmt.Sprintf("127.0.0.1:%d", m.lab.host.port()), Path: "/guestFile",
		RawQuery: url.Values{"id": {req.Vm.Value}, "token": {ticket}}.Encode(),
	}
	body.Res = &types.InitiateFileTransferToGuestResponse{Returnval: address.String()}
	return body
}

// serveGuest takes a file's content, once for each ticket, and exactly as much as was announced.
func (l *lab) serveGuest(w http.ResponseWriter, r *http.Request) {
	ticket := r.URL.Query().Get("token")
	l.mu.Lock()
	one, ok := l.uploads[ticket]
	delete(l.uploads, ticket)
	l.mu.Unlock()
	switch {
	case !ok:
		http.NotFound(w, r)
		return
	case r.Method != http.MethodPut || r.ContentLength != one.size:
		http.Error(w, "PUT it with the size that was announced", http.StatusBadRequest)
		return
	}
	in := io.Reader(r.Body)
	if f := l.take("guest-transfer-cut", ""); f != nil {
		_, _ = io.CopyN(io.Discard, in, int64(f.number(65536)))
		panic(http.ErrAbortHandler) // the connection breaks, as when the machine is moved
	}
	if f := l.take("guest-full", ""); f != nil {
		_, _ = io.Copy(io.Discard, in)
		http.Error(w, "no space left in the guest", http.StatusInternalServerError)
		return
	}
	file, err := os.OpenFile(one.file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, one.mode)
	if err == nil {
		_, err = io.Copy(file, in)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// showHosts tells the hosts' certificate, as vCenter does, by which a guest's transfers are trusted.
func (l *lab) showHosts() {
	for _, one := range l.registry.AllReference("HostSystem") {
		one.(*simulator.HostSystem).Summary.Config.SslThumbprint = l.host.sha1()
	}
}

// serveHost is the hosts' own web server.
func (l *lab) serveHost(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/guestFile" {
		l.serveGuest(w, r)
		return
	}
	l.serveNFC(w, r)
}
