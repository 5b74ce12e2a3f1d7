package catalog

// Number reports whether an operation has a top-level argument of this name that
// is a number, and whether it is required.
func (o *Operation) Number(argument string) (number, required bool) {
	if o.input == nil {
		return false, false
	}
	i, ok := o.input.find(argument)
	if !ok {
		return false, false
	}
	f := o.input.fields[i]
	switch f.shape.resolve().kind {
	case kindLong, kindNumber, kindFloat, kindDecimal:
		return true, f.required
	default:
		return false, f.required
	}
}
