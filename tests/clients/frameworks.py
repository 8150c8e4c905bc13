TESTS = ()
