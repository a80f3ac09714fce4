"""Small pieces of Jinja: expressions, tags, and mistakes. VALUES are the variables that they may use."""

VALUES = {
    "s": "Hello, World",
    "empty": "",
    "spaced": "  two  words \n",
    "uni": "Grüße, Ωμέγα – 日本語 🎉 ß",
    "quotes": "it's \"quoted\" \\ \t\n\x07\u200b\u00e9",
    "n": 7,
    "neg": -3,
    "zero": 0,
    "f": 2.5,
    "big": 123456789012345678,
    "tiny": 1e-7,
    "huge": 1e22,
    "t": True,
    "no": False,
    "nothing": None,
    "xs": [3, 1, 2],
    "words": ["pear", "Apple", "fig", "apple"],
    "mixed": [1, "a", None, True, 2.0, [1, 2], {"k": "v"}],
    "d": {"b": 1, "a": [1, 2], "C": "x", "items": "shadowed", "é": None},
    "people": [
        {"name": "Ann", "age": 31, "home": {"city": "Oslo"}},
        {"name": "bob", "age": 25, "home": {"city": "Bonn"}},
        {"name": "Cy", "age": 31, "home": {}},
    ],
}

EXPRESSIONS = """
1 + 2 * 3 - 4 / 2
7 // 2, -7 // 2, 7 // -2, 7 % 3, -7 % 3, 7 % -3
7.5 // 2, -7.5 // 2, 7.5 % 2, -7.5 % 2, 1 / 3, 4 / 2
2 ** 3 ** 2, -2 ** 2, 2 ** -1, 2.0 ** 0.5
1e3, 1.5e-7, 1_000, 0x1F, 0b101, 0o17, 00, 1e16, 1e15, 123456789.125
true + true, true * 3, false == 0, true == 1.0
'a' + 'b' ~ 'c' ~ 1 ~ none ~ true ~ 1.0
'ab' * 3, 2 * 'x', [1] * 2, 'a' * -1
[1, 2] + [3], (1, 2) + (3,), 'x' + 1
1 < 2 < 3, 1 < 2 > 1, 3 > 2 > 2, 1 == 1.0, '1' == 1
'a' < 'b', 'a' < 1, [1, 2] < [1, 3], [1] < [1, 0], none < 1
'ell' in s, 'x' not in s, 1 in xs, 9 in xs, 'a' in d, 'a' in nothing, 1 in s
not 1, not '', not [], not none, not missing
1 and 0 or 'x', '' or 'y', none and 1, 'a' and 'b'
'yes' if t else 'no', 'yes' if no else 'no', 'x' if no, ('x' if no) is undefined
1 if 0 else 2 if 0 else 3
[1, 'a', none, true, 2.0, [], {}, (), (1,), (1, 2)]
{'a': 1, 2: 'b', none: [1], true: {'x': 'y'}, 1.5: 0}
{'a': 1, 'a': 2, 'b': 3}
-n, +n, - -n, -f, -t, -s
s[0], s[-1], s[99], s[1:4], s[:-1], s[::-1], s[::2], s[-3:], s[10:2:-2], s['x'], s[1.0]
uni[0:6], uni[2], uni[-4], uni|length, uni[::-1]
xs[0], xs[-1], xs[5], xs[1:], xs[::-1], xs[:-1], xs[-2:], xs[true], xs['0'], xs[::0]
xs[nothing:2], xs[missing:], xs[:'a'], xs[100:], xs[-100:2], xs[2:0:-1], xs[0, 1]
d.a, d['a'], d.missing, d['missing'], d.items() | list, d['items'], d.keys() | list, d.values() | list
d.a.b.c, d.missing.x, missing.x, missing['x'], missing[0], missing()
d.get('a'), d.get('zz'), d.get('zz', 5), d.get('b', 'x'), d.get()
d | length, d.items() | length, d.keys(), d.values(), {'k': 'v'}.items(), {}.items()
people[0].name, people[0]['home'].city, people[2].home.city, people[1].home['city'], people.0.name
xs.append, xs.append(1), xs.pop(), d.update({}), d.pop('a'), d.clear, d.setdefault('a', 1), xs.sort(), xs.reverse()
xs.append is defined, d.update is undefined, xs.count(1), xs.index(2), xs.index(9), xs.copy(), d.copy() == d
s.__class__, s.__len__, d.__class__, s.__class__.__mro__, d._private
s.upper(), s.lower(), s.title(), s.capitalize(), s.swapcase(), 'éa'.upper(), 'ß'.upper(), 'ÀÉ'.lower(), "it's ok".title()
'  x '.strip(), '  x '.lstrip() ~ '|', ' x '.rstrip(), 'xxaxx'.strip('x'), 'xyaxy'.lstrip('yx'), 'abc'.rstrip('bc'), 'a'.strip(none), 'a'.strip(1)
s.startswith('Hell'), s.endswith(('x', 'ld')), s.startswith(('a', 'b')), s.startswith('W', 7), s.endswith('lo', 0, 5), s.startswith(1), s.startswith(['H'])
'a,b,,c'.split(','), ' a  b '.split(), 'a b c'.split(' ', 1), 'a b c'.split(maxsplit=1), ''.split(), ''.split(','), 'abc'.split('')
'a,b,c'.rsplit(',', 1), ' a b  c '.rsplit(none, 1), 'a b c'.rsplit(), 'x'.rsplit('y')
'a\\nb\\r\\nc\\n'.splitlines(), 'a\\nb'.splitlines(true), ''.splitlines(), 'a\\x0bb\\u2028c'.splitlines()
'a-b-c'.replace('-', '+'), 'a-b-c'.replace('-', '', 1), 'abc'.replace('', '.'), 'aaa'.replace('a', 'bb', 2), 'abc'.replace('', '.', 2), ''.replace('', 'x')
s.find('o'), s.find('o', 5), s.rfind('o'), s.find('zz'), s.index('W'), s.index('zz'), uni.find('日'), s.count('l'), s.count(''), s.count('l', 4), s.find('H', -3)
', '.join(['a', 'b']), ''.join([]), '-'.join('abc'), ','.join([1]), ','.join(d)
'abc'.isalpha(), 'ab1'.isalnum(), '12'.isdigit(), ''.isdigit(), '²'.isdigit(), '²'.isdecimal(), '½'.isnumeric(), ' \\t'.isspace(), 'Ab'.islower(), 'AB'.isupper(), 'a1'.islower(), 'é'.isalpha()
'prefix-x'.removeprefix('prefix-'), 'x.py'.removesuffix('.py'), 'abc'.removeprefix('z'), 'abc'.removesuffix('')
'a=b=c'.partition('='), 'a=b=c'.rpartition('='), 'abc'.partition('='), 'abc'.rpartition('=')
'x'.ljust(3) ~ '|', 'x'.rjust(3, '.'), 'x'.center(4, '*'), 'xy'.center(5, '*'), '7'.zfill(3), '-7'.zfill(4), 'abc'.zfill(2)
'{} and {}'.format(1, 'b'), '{0}{1}{0}'.format('a', 'b'), '{x!r:>5}|{y:<4}|{z:^5}'.format(x='q', y=2, z='m'), '{:.2f} {:5d} {:05d} {:,} {:x} {:%}'.format(3.14159, 42, 42, 1234567, 255, 0.25)
'{{}} {}'.format('x'), '{'.format(), '{}'.format(), '{a}'.format(b=1), '{0.name}{1[k]}'.format(people, {'k': 2}), '{:>{w}}'.format('a', w=4)
'%s and %d' % ('a', 3), '%s' % 'x', '%5.2f|%-5s|%05d|%x|%r' % (3.14159, 'ab', 42, 255, 'q'), '%(a)s-%(b)d' % {'a': 'x', 'b': 2}, '%%' % (), '%s' % none, '%d' % 'x', '%s %s' % 'x', '%s' % (1, 2), '%i%%' % 5, '%+d % d' % (3, 4)
'a' 'b' "c", 'tab\\tnew\\nline', 'q\\'q', "d\\"d", '\\x41\\u00e9\\101', 'un\\known', 'back\\\\slash'
none, none | string, true, 1.0, 1e100, 1e-5, 0.1 + 0.2, 100000000000000000.0, -0.0, 1.5e300 * 1e10
big, huge, tiny, f, big + 0.5, huge * 10
mixed, mixed | string, quotes, [quotes], [s, uni], {'q': "it's"}, ["a'b", 'a"b', 'a\\'b"c']
(1), (1,), (), ('a', 'b'), 1, 2
range(3), range(3) | list, range(1, 7, 2) | list, range(5, 0, -2) | list, range(0) | list, range(2.0), range(), range(1, 2, 0), 2 in range(3), range(3)[1], range(3) | length, range(200000)
dict(a=1, b=2), dict({'x': 1}, y=2), dict([['a', 1]]), dict(1), dict(**{'k': 1})
namespace(a=1).a, namespace(a=1).b, namespace().x is defined, namespace({'q': 3}).q, namespace(a=1)['a'], namespace(a=1)
cycler('a', 'b').next(), cycler(), cycler(1, 2).current, joiner()() ~ joiner('|')()
s is string, n is string, n is number, t is number, f is float, n is integer, t is integer, f is integer, t is boolean, nothing is none, none is none
d is mapping, xs is mapping, xs is sequence, s is sequence, d is sequence, d.items() is sequence, n is sequence, missing is sequence, xs is iterable, n is iterable, s is iterable, missing is iterable, d.items() is iterable
missing is defined, missing is undefined, s is defined, d.a is defined, d.zz is defined, d.zz is not defined, nothing is defined, pad_token is defined, bos_token is defined
n is odd, n is even, n is divisibleby 7, n is divisibleby(2), n is not divisibleby 3, neg is odd, f is odd, s is odd
true is true, 1 is true, false is false, none is false, t is sameas true, 1 is sameas 1, [] is sameas [], nothing is sameas none
1 is eq 1, 1 is equalto 2, 1 is ne 2, 1 is lt 2, 2 is le 2, 3 is gt 2, 3 is ge 4, 1 is lessthan 2, 3 is greaterthan(2), 1 is == 1
'a' is in 'abc', 1 is in [1, 2], 3 is in [1], 'x' is not in 'abc', 'abc' is lower, 'ABC' is upper, 'aB' is lower, range is callable, s is callable, s.upper is callable, missing is callable
'x' is string and 1 is number, 'x' is string or missing.y, not s is string, s is string is string
'upper' is filter, 'nope' is filter, 'odd' is test, s is nope, s is escaped
s | upper, s | lower, s | title, s | capitalize, "it's a-b (c) <d>" | title, 5 | upper, none | upper, missing | upper, uni | upper, uni | lower
spaced | trim, 'xxaxx' | trim('x'), 5 | trim, none | trim, missing | trim, '\\u3000a\\u00a0' | trim
s | length, xs | length, d | count, none | length, 5 | length, missing | length, people | selectattr('age') | length
xs | join, xs | join(', '), words | join(d='+'), people | join('/', attribute='name'), 'abc' | join('.'), missing | join, none | join, [none, true, 1.5] | join('|')
xs | first, xs | last, [] | first, [] | last, 'abc' | first, 'abc' | last, d | first, 5 | first, missing | first, missing | last, d.items() | last
xs | list, 'abc' | list, d | list, missing | list, 5 | list, none | list
xs | sort, xs | sort(reverse=true), words | sort, words | sort(case_sensitive=true), people | sort(attribute='age') | map(attribute='name') | list, people | sort(attribute='age,name', reverse=true) | map(attribute='name') | join, mixed | sort, d | sort
words | unique | list, words | unique(true) | list, [1, 1.0, true, 2] | unique | list, people | unique(attribute='age') | map(attribute='name') | list, [[1], [1]] | unique | list
words | map('upper') | list, people | map(attribute='home.city') | list, people | map(attribute='home.city', default='?') | list, people | map(attribute='zz') | list, xs | map('nope') | list, xs | map | list, words | map('replace', 'p', 'b') | list, [1.5, 2.5] | map('round') | list, people | map(attribute='name', x=1) | list
xs | select('odd') | list, xs | select('gt', 1) | list, xs | reject('odd') | list, [0, 1, '', 'a'] | select | list, [0, 1] | reject | list, people | selectattr('age', 'eq', 31) | map(attribute='name') | list, people | selectattr('home.city') | list | length, people | selectattr('home.city', 'defined') | list | length, people | rejectattr('age', 'gt', 30) | map(attribute='name') | list, xs | select('nope') | list, people | selectattr | list
(xs | select('odd')) and 1, ([] | select('odd')) and 1, (missing | map('upper')) and 1, 5 | map('upper') | list, 0 | map('upper') | list
xs | reverse | list, 'abc' | reverse, d | reverse | list, (xs | map('string') | reverse), 5 | reverse
xs | sum, people | sum(attribute='age'), [] | sum, xs | sum(start=10), words | sum, [[1], [2]] | sum(start=[])
xs | min, xs | max, words | min, words | max, [] | min, people | max(attribute='age'), people | min(attribute='age'), words | min(case_sensitive=true), mixed | max
2.5 | round, 3.5 | round, 2.567 | round(2), 2.567 | round(1, 'ceil'), 2.567 | round(1, 'floor'), 5 | round, 15 | round(-1), 25 | round(-1), 2.675 | round(2), 'a' | round, 1.5 | round(1, 'x'), 1234.5 | round(-2)
-3 | abs, neg | abs, -2.5 | abs, 'a' | abs, (-3) | abs
'42' | int, '4.7' | int, 'x' | int, 'x' | int(5), 4.9 | int, '0x1f' | int(base=16), '1f' | int(0, 16), none | int, ' 12 ' | int, '1_000' | int, true | int, '-7' | int, [] | int, missing | int, '' | int, '1e3' | int, '101' | int(base=2)
'4.5' | float, 'x' | float, 'x' | float(1.5), 3 | float, '1e3' | float, 'inf' | float, none | float, ' 2 ' | float, 'nan' | float, '1_0.5' | float, missing | float, true | float
missing | default('x'), missing | d('y'), '' | default('z'), '' | default('z', true), none | default('q'), none | default('q', true), false | default('w', boolean=true), missing | default, d.zz | default([]) | length, missing.x | default('no')
s | replace('l', 'L'), s | replace('l', 'L', 1), 5 | replace(5, 6), s | replace('', '-'), s | replace(none, 'x'), missing | replace('a', 'b')
d | tojson, mixed | tojson, uni | tojson, quotes | tojson, none | tojson, 1.0 | tojson, [] | tojson, {} | tojson, (1, 2) | tojson, missing | tojson, '<a>&' | tojson, {1: 2, none: 3, true: 4} | tojson, huge | tojson, range(2) | tojson
d | tojson(indent=2), people | tojson(indent=4), [] | tojson(indent=2), {'a': []} | tojson(indent=1), [1, [2]] | tojson(indent=0), [1] | tojson(indent='--'), d | tojson(sort_keys=true), uni | tojson(ensure_ascii=true), d | tojson(separators=(',', ':')), [1, {'a': 2}] | tojson(separators=(', ', ': '), indent=2), [1] | tojson(separators='x'), {'b': 1, 2: 1} | tojson(sort_keys=true), '\\x7f\\u2028' | tojson(ensure_ascii=true)
d | items | list, missing | items | list, 5 | items | list, d.items() | list == d | items | list
d | dictsort, d | dictsort(true), d | dictsort(reverse=true), {'a': 2, 'b': 1} | dictsort(by='value'), d | dictsort(by='zz'), 5 | dictsort, d | dictsort(by='value')
[1, 2, 3, 4, 5] | batch(2) | list, [1, 2, 3] | batch(2, 0) | list, [] | batch(3) | list, xs | batch(1) | list, xs | batch(0) | list, xs | batch(5, 'x') | list
[1, 2, 3, 4, 5] | slice(2) | list, [1, 2, 3, 4] | slice(3, 'x') | list, [] | slice(2) | list, [1] | slice(3) | list, xs | slice(0) | list
'a\\nb\\n\\nc' | indent, 'a\\nb' | indent(2, true), 'a\\n\\nb' | indent(2, blank=true), 'a\\nb' | indent('> '), 5 | indent, '' | indent(2, true), 'a\\n' | indent, missing | indent
'<a href="x">&\\'' | e, '<' | escape, 5 | e, '<' | safe, '<' | forceescape, none | e
'%s-%s' | format('a', 1), '%(x)s' | format(x=2), '%d' | format('x'), 'plain' | format, '%s' | format('a', x=1)
people | groupby('age') | map('first') | list, people | groupby('age') | map(attribute='grouper') | list, (people | groupby('age') | first).list | length, words | groupby(0) | map(attribute='list') | list, people | groupby('home.city', default='?') | map(attribute='grouper') | list, people | groupby('home.city') | list
'one two, three' | wordcount, '' | wordcount, uni | wordcount, 'a_b c-d' | wordcount
'foo bar baz qux' | truncate(9), 'foo bar baz qux' | truncate(9, true), 'foo bar baz qux' | truncate(11), 'foo bar baz qux' | truncate(11, leeway=0), 'foo bar' | truncate(5, end='', leeway=0), 'short' | truncate, 'abcdefghijkl' | truncate(2), missing | truncate
'x' | center(5) ~ '|', 'ab' | center(5), 5 | center(3)
'a b/c?d=é&' | urlencode, {'a b': 1, 'c': 'd/e'} | urlencode, [('x', 'y z')] | urlencode, 5 | urlencode
d | attr('b'), d | attr('items') is callable, s | attr('upper') is callable, s | attr('zz'), namespace(a=1) | attr('a'), s | attr('__class__')
s | nope, s | upper | nope, (s | upper)(1), s | upper()
s | string, 5 | string, none | string, xs | string, missing | string
raise_exception('boom'), raise_exception()
strftime_now('%Y-%m-%d'), strftime_now('%d %b %Y %H:%M:%S %A %B %j %p %y %%'), strftime_now('%f'), strftime_now('%z%Z|'), strftime_now('')
strftime_now('%-d/%-m %e'), strftime_now(1), strftime_now('%Y年%m月')
missing, missing ~ 'x', missing + 1, 1 + missing, missing == missing, missing == none, missing != 1, missing < 1, missing and 1, missing or 'z', missing in xs, 'a' in missing, missing in s, missing * 2, -missing
[missing], [missing] | string, {'a': missing}, (missing,) | length
s.nope, s.nope(), n.x, none.x, nothing.x is defined, nothing['a'], none[0], 5[0], xs.0, xs.7
loop is defined, caller is defined, varargs is defined, xs is varargs
1 in [1.0], '' in s, [] in [[]], (1, 2) in {(1, 2): 3}, none in [none], true in [1]
[1, 2,], {'a': 1,}, (1, 2,), range(3,) | list
[] == [], [1] == [1.0], {} == {}, {'a': 1, 'b': 2} == {'b': 2, 'a': 1}, (1,) == [1], 'a' == 'a', none == false
s * 1.5, s - 1, s / 2, {} + {}, [] - [], none + 1, 1 + '1', 'a' % 1
1 / 0, 1 // 0, 1 % 0, 1.0 / 0, 0 ** -1, 0.0 ** -1
{[]: 1}, {{}: 1}, {(1, 2): 3}
s[1:2][0], [1, 2, 3][1:][0], {'a': {'b': [10, 20]}}.a.b[1], [[1, 2], [3]][0][1]
s|upper|lower|title, (s|upper).lower(), s.upper()|lower, -1|abs, 2*3|string, 'a'~1|string, not s|length, 1 + 2|float
messages, messages | length, tools, documents, add_generation_prompt
'a' if missing is defined else 'b', d.zz if d.zz is defined else 'none', s if s is string and s | length > 3 else '-'
"\\u00e9" == "é", '\\x4', '\\u12'
uni | list, uni.split(', '), uni | urlencode, uni | wordcount, uni.title(), uni.capitalize(), uni | tojson(indent=1)
"""

TEMPLATES = [
    "plain text", "", "\n", "a\n", "a\n\n", "a\r\nb\rc\n", "{", "{ {", "}}", "%}", "#}", "a {b} c", "{{ '}}' }}", "{{ '{%' }}",
    "{{", "{{ }}", "{% %}", "{{ 1", "{% if 1", "{# open", "{{ 1 }", "{{ 'a }}", "{{ 1 + }}", "{{ (1 }}", "{{ 1) }}", "{{ [1} }}", "{{ ! }}", "{{ a b }}",
    "{{ a. }}", "{{ .a }}", "{{ a..b }}", "{{ a[] }}", "{{ a[1 }}", "{{ f(a=1, 2) }}", "{{ f(*a, *b) }}", "{{ f(a=1, a=2) }}", "{{ 1 2 }}", "{{ , }}", "{{ 1,, 2 }}",
    "{% nope %}", "{% endif %}", "{% if 1 %}", "{% if %}{% endif %}", "{% else %}", "{% for x in %}{% endfor %}", "{% for in xs %}{% endfor %}", "{% for 1 in xs %}{% endfor %}",
    "{% for x in xs %}", "{% set %}", "{% set 1 = 2 %}", "{% set x = %}", "{% set none = 1 %}", "{% set x.y = 1 %}", "{% set a, 1 = xs %}", "{% macro %}{% endmacro %}", "{% macro m %}{% endmacro %}",
    "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m(1) %}{% endmacro %}", "{% macro m(a, a) %}{% endmacro %}", "{% call 1 %}{% endcall %}", "{% filter %}{% endfilter %}", "{% break %}", "{% continue %}",
    "{% if 1 %}a{% elif 2 %}b{% else %}c{% endif %}", "{% if 0 %}a{% elif 2 %}b{% else %}c{% endif %}", "{% if 0 %}a{% elif 0 %}b{% else %}c{% endif %}", "{% if 0 %}a{% elif 0 %}b{% endif %}",
    "{% if 1 %}a{% else %}b{% elif 2 %}c{% endif %}", "{% if 1: %}x{% endif %}", "{% if missing.x %}a{% endif %}", "{% if 1, 2 %}t{% endif %}",
    "{% for x in xs %}{{ x }},{% endfor %}", "{% for x in xs %}{{ x }}{% else %}none{% endfor %}", "{% for x in [] %}{{ x }}{% else %}none{% endfor %}", "{% for x in missing %}a{% else %}b{% endfor %}",
    "{% for x in none %}{% endfor %}", "{% for x in 5 %}{% endfor %}", "{% for c in 'añb' %}{{ c }}.{% endfor %}", "{% for k in d %}{{ k }};{% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d | dictsort %}{{ k }}={{ v }};{% endfor %}", "{% for a, b in xs %}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, in [(1,)] %}{{ a }}{% endfor %}", "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}", "{% for x in xs if x > 1 %}{{ x }}{{ loop.index }}{{ loop.last }}{% endfor %}",
    "{% for x in xs if x > 9 %}{{ x }}{% else %}none{% endfor %}", "{% for x in xs if loop.first %}{% endfor %}", "{% for x in (xs if t else []) %}{{ x }}{% endfor %}", "{% for x in xs if t else [] %}{% endfor %}",
    "{% for x in xs %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}",
    "{% for x in xs %}[{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }}]{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}", "{% for x in xs %}{{ loop.nope }}{{ loop.nope is defined }}{% endfor %}",
    "{% for x in xs %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }} {% endfor %}", "{% for x in xs %}{{ loop.cycle() }}{% endfor %}",
    "{% for x in xs %}{% for y in 'ab' %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}", "{% for x in xs %}{% set outer = loop %}{% for y in 'ab' %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for x in xs %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in xs %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% else %}e{% endfor %}", "{% for x in xs %}{% if loop.last %}last{% endif %}{% endfor %}{{ loop }}",
    "{% for x in xs %}{% for y in xs %}{% if y == 1 %}{% break %}{% endif %}{{ y }}{% endfor %};{% endfor %}", "{% set i = 0 %}{% for x in xs %}{% set i = i + x %}{{ i }} {% endfor %}{{ i }}", "{{ x }}{% for x in xs %}{% endfor %}{{ x is defined }}",
    "{% set ns = namespace(i=0) %}{% for x in xs %}{% set ns.i = ns.i + x %}{% endfor %}{{ ns.i }}", "{% set ns = namespace() %}{% set ns.a = 1 %}{% set ns.b, c = 2, 3 %}{{ ns.a }}{{ ns.b }}{{ c }}", "{% set q = d %}{% set q.x = 1 %}",
    "{% set a = 1 %}{% if true %}{% set a = 2 %}{% endif %}{{ a }}", "{% if no %}{% set bos_token = 'x' %}{% endif %}{{ bos_token }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a = 1, 2 %}{{ a }}", "{% set a, b = [1] %}", "{% set (a, b) = (1, 2) %}{{ a + b }}",
    "{% set x %}a{{ n }}b{% endset %}{{ x }}{{ x is string }}", "{% set x | upper | replace('A', 'z') %}abc{% endset %}{{ x }}", "{% set x %}{% set y = 1 %}{% endset %}{{ y is defined }}", "{% set x %}{% endset %}[{{ x }}]", "{% set x | nope %}{% endset %}",
    "{% macro m(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(b=5, a=4) }} {{ m() }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(z=1) }}", "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(7) }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}", "{% macro m(a) %}{{ a }}{{ varargs | length }}{% endmacro %}{{ m(1, 2, 3) }}", "{% macro m() %}x{{ caller() }}y{% endmacro %}{% call m() %}in{{ n }}{% endcall %}",
    "{% macro m() %}{{ caller(1, b=2) }}{% endmacro %}{% call(a, b) m() %}{{ a }}{{ b }}{% endcall %}", "{% macro m() %}no{% endmacro %}{% call m() %}x{% endcall %}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}",
    "{% macro fact(k) %}{% if k > 1 %}{{ k }}*{{ fact(k - 1) }}{% else %}1{% endif %}{% endmacro %}{{ fact(5) }}", "{% macro m() %}{{ later }}{% endmacro %}{% set later = 'set' %}{{ m() }}", "{% macro m() %}{% set n = 99 %}{{ n }}{% endmacro %}{{ m() }}{{ n }}",
    "{% for x in xs %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{% macro m(x) %}{{ x | upper }}{% endmacro %}{{ m('a') ~ m('b') }}", "{{ m() }}{% macro m() %}{% endmacro %}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(*[1]) }}{{ m(**{'a': 2}) }}{{ m.name }}", "{% macro m() %}a\n{% endmacro %}[{{ m() }}]", "{% macro m(a) -%} {{ a }} {%- endmacro %}[{{ m(1) }}]",
    "{% filter upper %}abc{{ s }}{% endfilter %}", "{% filter replace('a', 'b') | upper %}banana{% endfilter %}", "{% filter nope %}{% endfilter %}", "{% filter trim %}  x  {% endfilter %}|", "{% with a = 1, b = a %}{{ a }}{{ b is defined }}{% endwith %}{{ a is defined }}",
    "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}", "{% print 1, 'a' %}", "{% print n %}", "{% block b %}x{{ n }}{% endblock %}", "{% block b %}x{% endblock b %}", "{% generation %}text{% set z = 1 %}{% endgeneration %}{{ z is defined }}", "{% generation %}",
    "{% raw %}{{ x }} {% if %}{% endraw %}", "{% raw %}\n a\n{% endraw %}\nb", "{%- raw -%}  a  {%- endraw -%}  b", "a {% raw %} b {% endraw %} c", "{% raw %}", "x\n  {% raw %} y\n  {% endraw %} z", "{% raw -%} a {% endraw +%}\nb", "{% raw x %}",
    "a{# c #}b", "a\n  {# c #}\nb", "a {#- c -#} b", "a\n{#+ c +#}\nb", "{# {{ x }} #}", "{# a\nb #}\nc", "{#-#}x", "a{#}b#}c", "{##}", "a  {#- x #}  b",
    "{% set x = 'a' -%}\n  {{ x }}", "  {%- if t %}\n x\n  {%- endif %}\n y", "  {%+ if t %}x{%+ endif %}", "{% if t +%}\nx{% endif %}", "a\n  {{- n -}}  \nb", "{{ n -}} \n x", "a {{- n }} b", "\n\n  {% if t %}\n\n x\n\n  {% endif %}\n\n",
    "a  {% if t %}b{% endif %}", "\t{% if t %}\tb{% endif %}\t", "{% if t %}\r\n x{% endif %}\r\n", "{{ n }}\n{{ n }}\n", "{% if t %} {% endif %}\n", "x{%- set a = 1 -%}y", "{{- '' -}}   a", "{%-if t-%}x{%-endif-%}", "{{-n-}}", "{{+n}}", "{{ n +}}", "{{ -n }}", "{{--n}}",
    "{% for x in xs recursive %}{{ x }}{% endfor %}", "{% for p in [{'n': 1, 'c': [{'n': 2, 'c': []}]}] recursive %}{{ p.n }}{{ loop.depth }}({{ loop(p.c) }}){% endfor %}", "{% for x in xs %}{{ loop(x) }}{% endfor %}",
    "{% set g = words | map('upper') %}{{ g | list }}{{ g | list }}", "{% set g = words | map('upper') %}{{ g | first }}{{ g | list }}", "{% for x in words | map('upper') %}{{ x }}{{ loop.length }}{% endfor %}", "{% set g = xs | map('nope') %}ok", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{% set _ = c.reset() %}{{ c.current }}",
    "{% set j = joiner('|') %}{% for x in xs %}{{ j() }}{{ x }}{% endfor %}", "{% if no %}{{ x | nope }}{% endif %}", "{% if no %}{{ s is nope }}{% endif %}ok", "{{ 'a' if t else s | nope }}", "{% for x in [] %}{{ x | nope }}{% endfor %}", "{% macro m() %}{{ x | nope }}{% endmacro %}",
    "{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}", "{% do 1 %}", "{% trans %}{% endtrans %}", "{% autoescape false %}x{% endautoescape %}", "{% set range = 5 %}{{ range }}", "{% set messages = messages[1:] %}{{ messages | length }}",
    "{% for message in messages %}{{ message }}{% endfor %}", "{{ (1, 2) }}{{ [1, 2] }}", "{{ namespace }}{{ 1 }}" if False else "{{ 1 }}", "{% set a = [] %}{% set _ = a.append(1) %}", "{{ [1, 2] | map('string') | join(', ') }}", "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}",
    "{% for x in xs %}{% set ns = x %}{% endfor %}{{ ns is defined }}", "{% for x in xs %}{% filter upper %}{% if x == 1 %}{% break %}{% endif %}a{% endfilter %}{% endfor %}", "{% for x in xs %}{% set y %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endset %}{{ y }}{% endfor %}",
    "{% for x in xs %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", "{% if t %}{% for x in xs %}{{ x }}{% endfor %}{% endif %}", "{% set _ = xs %}{{ _ | length }}", "{{ é }}", "{% set naïve = 'ï' %}{{ naïve }}", "{{ a$ }}", "{{ 1a }}", "{{ 012 }}", "{{ 1__0 }}", "{{ 1. }}", "{{ .5 }}", "{{ 1.e5 }}",
    "{{ true.x }}", "{{ True and none is None }}", "{{ true is boolean }}{{ True }}{{ False }}{{ None }}", "{% set true = 1 %}", "{% set x = xs | length > 2 and s or 'b' %}{{ x }}", "{{ {'a': 1}['a'] }}{{ {'a': {'b': 2}}['a']['b'] }}", "{{ {}}}", "{{ {'a': {}} }}", "{{ 'a' ~ {'b': {'c': 1}}}}",
]
