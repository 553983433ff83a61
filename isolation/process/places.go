package process

import "github.com/mayfly/mayfly/isolation"

// Private makes what a program has of the file system to itself: its own directory and the temporary ones; nil where the host does not allow that. The
// caller closes it when nothing of the program is left.
func (s *Spawner) Private(spec *isolation.Spec, place int, images Images) (*Private, error) {
	if !s.separates {
		return nil, nil
	}
	uid, gid := s.policy.Users.Of(place)
	own, devices, size, disk := spec.Private, spec.Devices, spec.Limits.Memory/2, spec.Limits.Disk
	alone := s.alone(place)
	if disk == 0 {
		if p := s.kept(place); p != nil {
			if p.fits(own, size, devices) && p.furnish(own, spec.Dirs, uid, gid) == nil {
				return p, nil
			}
			p.drop()
		}
	}
	p, err := newPrivate(own, s.policy.Hidden, size, disk, access{all: !alone, gid: gid}, images)
	if err != nil {
		return nil, err
	}
	p.spawner, p.place = s, place
	for _, path := range s.policy.Writable {
		if err := p.share(path); err != nil {
			p.drop()
			return nil, err
		}
	}
	for _, d := range devices {
		if err := p.add(d, s.policy.Hidden); err != nil {
			p.drop()
			return nil, err
		}
	}
	if err := s.mount(p); err != nil {
		p.drop()
		return nil, err
	}
	if disk == 0 {
		p.count()
	}
	if err := p.furnish(own, spec.Dirs, uid, gid); err != nil {
		p.drop()
		return nil, err
	}
	return p, nil
}

// alone notes that a place is used, and reports whether no other one has its user.
func (s *Spawner) alone(place int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, place)
	return s.changesUser && s.last < int(s.policy.Users.Count)
}

// kept takes what the program before left at a place.
func (s *Spawner) kept(place int) *Private {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.places[place]
	delete(s.places, place)
	return p
}

// keep keeps a private part for the next program of its place, if it is as good as new.
func (s *Spawner) keep(p *Private) bool {
	if p.room == nil || !s.alone(p.place) || !p.room.empty() || !p.sweep() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.places[p.place] != nil {
		return false
	}
	s.places[p.place] = p
	return true
}

// mount makes the namespaces with the private part mounted.
func (s *Spawner) mount(p *Private) error {
	s.making <- func() (err error) {
		p.room, err = newRoom(p, s.policy.Hidden, s.home)
		return err
	}
	err := <-s.made
	closeAll(p.shares)
	p.shares = nil
	return err
}
