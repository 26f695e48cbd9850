"""From a teacher to its student: sample with the student, label with the teacher, train, repeat."""
