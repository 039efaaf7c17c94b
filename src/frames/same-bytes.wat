(module
  (import "slabs" "memory" (memory 1))
  (func (export "same") (param $a i32) (param $b i32) (param $n i32) (result i32)
    (local $end i32)
    ;; Sixteen bytes at a time, as long as there are as many.
    (local.set $end (i32.sub (i32.add (local.get $a) (local.get $n)) (i32.const 16)))
    (if (i32.ge_u (local.get $n) (i32.const 16))
      (then
        (block $last
          (loop $next
            (br_if $last (i32.ge_u (local.get $a) (local.get $end)))
            (if (v128.any_true (v128.xor (v128.load align=1 (local.get $a)) (v128.load align=1 (local.get $b))))
              (then (return (i32.const 0))))
            (local.set $a (i32.add (local.get $a) (i32.const 16)))
            (local.set $b (i32.add (local.get $b) (i32.const 16)))
            (br $next)))
        ;; The last sixteen, which may overlap those before.
        (local.set $b (i32.sub (local.get $b) (i32.sub (local.get $a) (local.get $end))))
        (return (i32.eqz (v128.any_true
          (v128.xor (v128.load align=1 (local.get $end)) (v128.load align=1 (local.get $b))))))))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $n)))
        (if (i32.ne (i32.load8_u (local.get $a)) (i32.load8_u (local.get $b)))
          (then (return (i32.const 0))))
        (local.set $a (i32.add (local.get $a) (i32.const 1)))
        (local.set $b (i32.add (local.get $b) (i32.const 1)))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br $next)))
    (i32.const 1)))
