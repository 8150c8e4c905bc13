# How a room is built: nautile_room(NAME [USES room...] [LIBS lib...]) makes library nautile_NAME from src/NAME/*.cc and,
# with NAUTILE_TESTS, program test_NAME from src/NAME/*_test.cc (doctest), run by ctest under the room's name.

add_library(nautile_flags INTERFACE)
target_compile_options(nautile_flags INTERFACE -Wall -Wextra -Werror -fno-omit-frame-pointer
  # g++ 12 sees overlap in the standard library's own "literal" + std::string at -O3 (its bug 105329).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
  # Same tokens everywhere: no contraction the source does not spell, no reassociation.
  -ffp-contract=off)
target_include_directories(nautile_flags INTERFACE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)
if(NAUTILE_SANITIZE)
  target_compile_options(nautile_flags INTERFACE -fsanitize=${NAUTILE_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(nautile_flags INTERFACE -fsanitize=${NAUTILE_SANITIZE})
endif()
if(NAUTILE_FUZZ)
  target_compile_options(nautile_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

function(nautile_room name)
  cmake_parse_arguments(ROOM "" "" "USES;LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(TRANSFORM ROOM_USES PREPEND nautile_ OUTPUT_VARIABLE uses)
  if(sources)
    add_library(nautile_${name} STATIC ${sources})
    target_link_libraries(nautile_${name} PUBLIC nautile_flags ${uses} ${ROOM_LIBS})
  else()
    add_library(nautile_${name} INTERFACE)
    target_link_libraries(nautile_${name} INTERFACE nautile_flags ${uses} ${ROOM_LIBS})
  endif()
  if(tests AND NAUTILE_TESTS)
    add_executable(test_${name} ${CMAKE_SOURCE_DIR}/tests/doctest_main.cc ${tests})
    target_link_libraries(test_${name} PRIVATE nautile_${name})
    target_compile_definitions(test_${name} PRIVATE NAUTILE_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    add_test(NAME ${name} COMMAND test_${name})
  endif()
endfunction()
